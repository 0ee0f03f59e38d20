package clock

import "time"

// BootClock is the boot clock of tests, over readings of their own.
type BootClock struct{ bootClock }

// NewBootClock makes one.
func NewBootClock(read, mono func() time.Duration) *BootClock {
	return &BootClock{bootClock{read: read, mono: mono}}
}

// At is the boot clock at an instant.
func (c *BootClock) At(mono time.Duration, wall time.Time) time.Duration { return c.at(mono, wall) }
