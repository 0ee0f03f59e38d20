//go:build !linux

package clock

import "time"

// boottime returns 0: there is no such clock here that Go's standard library can read.
func boottime() time.Duration { return 0 }
