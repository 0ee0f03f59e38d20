//go:build !linux

package dynamolocal

import "os/exec"

// startBound starts cmd. The channel is closed when it has exited. A test process that is killed leaves it behind.
func startBound(cmd *exec.Cmd) (<-chan struct{}, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // killed, or exited by itself: await tells
	}()
	return exited, nil
}
