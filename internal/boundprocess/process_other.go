//go:build !linux

package boundprocess

import (
	"os/exec"
	"syscall"
)

// Start starts cmd. The channel is closed when it has exited. A test process
// that is killed leaves it behind.
func Start(cmd *exec.Cmd, _ syscall.Signal) (<-chan struct{}, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // killed, or exited by itself: whoever waits for it to answer sees that
	}()
	return exited, nil
}
