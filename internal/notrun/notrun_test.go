package notrun_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/notrun"
)

// recorder is a test whose end can be seen.
type recorder struct {
	testing.TB
	failed, skipped bool
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(string, ...any) {
	r.failed = true
	runtime.Goexit()
}

func (r *recorder) Skip(...any) {
	r.skipped = true
	runtime.Goexit()
}

func skip() *recorder {
	r := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		notrun.Skip(r, "the tests on a program", "install it")
	}()
	<-done
	return r
}

// Not parallel: they set environment variables.

func TestWhatIsLeftOutIsSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not-run")
	t.Setenv(notrun.AllVariable, "")
	t.Setenv(notrun.FileVariable, file)
	for range 2 {
		require.Equal(t, &recorder{skipped: true}, skip())
	}
	said, err := os.ReadFile(file)
	require.NoError(t, err)
	const line = "the tests on a program: install it\n"
	require.Equal(t, line+line, string(said))
}

func TestWhereAllMustRunItIsAFailure(t *testing.T) {
	t.Setenv(notrun.AllVariable, "1")
	t.Setenv(notrun.FileVariable, filepath.Join(t.TempDir(), "not-run"))
	require.Equal(t, &recorder{failed: true}, skip())
}
