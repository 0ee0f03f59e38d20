//go:build !unix

package postgreslocal

import "syscall"

type account struct{}

func unprivileged() account                      { return account{} }
func (account) attributes() *syscall.SysProcAttr { return nil }
func (account) give(string) error                { return nil }
func kill(int)                                   {}
