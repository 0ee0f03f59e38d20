package main

import "syscall"

// attributes are those of the command's process: it dies with its parent's thread.
func attributes(group bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: group, Pdeathsig: syscall.SIGKILL}
}
