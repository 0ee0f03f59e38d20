package dynamolocal

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startBound starts cmd so that it dies with this process, even a killed one. The kernel sends Pdeathsig when the THREAD that
// started the child ends, so that thread is kept until the child has exited. The channel is closed then.
func startBound(cmd *exec.Cmd) (<-chan struct{}, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	exited, started := make(chan struct{}), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed, or exited by itself: await tells
		}
	}()
	return exited, <-started
}
