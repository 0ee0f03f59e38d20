//go:build !unix

package main

import (
	"context"
	"errors"
	"os"
	"syscall"
)

var passedOn = []os.Signal{os.Interrupt}

func ends(syscall.Signal) bool { return true }

// supervise refuses: without process groups and signals run cannot keep its
// promise.
func (c *cli) supervise(
	context.Context, *runFlags, []string, []string, <-chan os.Signal,
) (int, error) {
	return 0, errors.New("run works on Unix only")
}

func closeOnExec(int) {}
