package sqlkv

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/kv"
)

// SQLite's result codes of what somebody has to mend first.
const (
	codePerm     = 3
	codeReadOnly = 8
	codeCorrupt  = 11
	codeCantOpen = 14
	codeAuth     = 23
	codeNotADB   = 26
)

// classified gives an error of SQLite's its class, unless it has one. Nothing was
// written.
func classified(err error) error {
	if err == nil || retry.IsClassified(err) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	class := kv.ErrUnavailable
	switch code(err) {
	case codePerm, codeReadOnly, codeCorrupt, codeCantOpen, codeAuth, codeNotADB:
		class = kv.ErrRefused
	}
	return fmt.Errorf("%w: %w", class, err)
}

// code is SQLite's result code, -1 where the driver does not tell it.
func code(err error) int {
	if coded, ok := errors.AsType[interface {
		error
		Code() int
	}](err); ok {
		return coded.Code() & 0xff
	}
	return -1
}
