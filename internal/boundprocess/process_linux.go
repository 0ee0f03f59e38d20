package boundprocess

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd so that it dies of death when this process ends, even a
// killed one. The kernel sends it when the THREAD that started the child ends,
// so that thread is kept until the child has exited. The channel is closed
// then.
func Start(cmd *exec.Cmd, death syscall.Signal) (<-chan struct{}, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = death
	exited, started := make(chan struct{}), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed, or exited by itself: whoever waits for it to answer sees that
		}
	}()
	return exited, <-started
}
