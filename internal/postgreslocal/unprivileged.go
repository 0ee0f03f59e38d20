//go:build unix

package postgreslocal

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is whom a server's programs run as.
type account struct{ credential *syscall.Credential }

// unprivileged returns somebody else if we are root, whom the programs refuse.
func unprivileged() account {
	if os.Geteuid() != 0 {
		return account{}
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		}
	}
	return account{} // initdb will say what is wrong
}

// attributes makes a command run as the account.
func (a account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: a.credential}
}

// give makes a file the account's.
func (a account) give(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, int(a.credential.Uid), int(a.credential.Gid))
}

func kill(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) } // it may be gone
