package lease

import "github.com/dynalock/dynalock/internal/seam"

func init() {
	seam.Of = func(client any) seam.Client {
		c := client.(*Client)
		return seam.Client{
			Clock: c.clock, Log: c.log, Heartbeat: c.heartbeat, AttemptTimeout: c.attemptTimeout(),
			PollMin: c.pollMin, PollMax: c.pollMax,
			Emit: func(event any) {
				e := event.(Event)
				e.quiet = true
				c.emit(e)
			},
		}
	}
}
