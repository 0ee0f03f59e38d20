// Package cronlock lets several processes share the jobs of robfig/cron
// (github.com/robfig/cron/v3). Each run of a job is done by one of them.
//
//	once := lock.NewOnce(client, "report")
//	schedule, err := cron.ParseStandard("0 6 * * *")
//	...
//	shared, err := cronlock.New(ctx, once, schedule, cron.DefaultLogger)
//	...
//	c.Schedule(schedule, cron.NewChain(shared).Then(cron.FuncJob(report)))
//
// A run is named by the time for which it was scheduled. All processes name it
// alike, whatever their clocks show, and whoever comes late hears that it was done.
//
// A job that implements [Job] is given a context, and its error is recorded. Any
// other job runs on when its lease is lost, and counts as done when it returns.
package cronlock
