//go:build unix && !linux

package main

import "syscall"

// attributes are those of the command's process.
func attributes(group bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: group} }
