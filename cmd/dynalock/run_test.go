//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/lease"
)

// asStubborn makes the test binary a program that ignores SIGTERM, and writes the
// time to the file that it names, again and again.
const asStubborn = "DYNALOCK_TEST_STUBBORN"

func init() {
	path := os.Getenv(asStubborn)
	if path == "" || os.Getenv(asCommand) != "" {
		return
	}
	signal.Ignore(syscall.SIGTERM)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		os.Exit(1)
	}
	for {
		now := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())) //nolint:gosec // it is after 1970
		if _, err := f.WriteAt(now, 0); err != nil {
			os.Exit(1)
		}
		time.Sleep(time.Millisecond)
	}
}

// lastSign is when the stubborn program wrote last, the zero time if it has not
// begun.
func lastSign(path string) time.Time {
	content, err := os.ReadFile(path)
	if err != nil || len(content) < 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(content))) //nolint:gosec // it was one
}

// proxy is a way to an endpoint that can be cut: what was sent stays in it.
type proxy struct {
	net.Listener
	to   string
	cuts chan struct{} // closed: cut
}

func newProxy(t *testing.T, endpoint string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(endpoint)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: l, to: u.Host, cuts: make(chan struct{})}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(t.Context(), conn)
		}
	}()
	return p, "http://" + l.Addr().String()
}

func (p *proxy) serve(ctx context.Context, from net.Conn) {
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = from.Close()
		return
	}
	carry := func(to io.Writer, from io.Reader) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			select {
			case <-p.cuts:
				<-ctx.Done() // a black hole
				return
			default:
			}
			if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
				return
			}
		}
	}
	go carry(from, to)
	carry(to, from)
}

func TestTheCommandIsDeadBeforeAnotherHoldsTheLock(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	direct := dynamolocal.Endpoint(t)
	times := 3
	if os.Getenv("DYNALOCK_TEST_LONG") != "" {
		times = 20
	}
	for i := range times {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			way, endpoint := newProxy(t, direct)
			partition := "&partition=" + newPartition()
			self, err := os.Executable()
			require.NoError(t, err)
			alive := filepath.Join(t.TempDir(), "alive")
			said := &lockedBuffer{}
			var first *exec.Cmd
			var ended chan error
			for lastSign(alive).IsZero() { // a busy machine loses the lock before the command has begun
				first = command(t, localStore(t, endpoint)+partition, "run", "--ttl", "3s", "--margin", "700ms", "demo", "--",
					"env", "-u", asCommand, asStubborn+"="+alive, self)
				first.Stderr = said
				require.NoError(t, first.Start())
				ended = make(chan error, 1)
				go func() { ended <- first.Wait() }()
				require.Eventually(t, func() bool { return !lastSign(alive).IsZero() || len(ended) > 0 }, time.Minute,
					10*time.Millisecond)
			}
			t.Cleanup(func() { t.Logf("the first said: %s", said.String()) })

			c := &cli{err: io.Discard, ttl: 3 * time.Second, output: "table", store: localStore(t, direct) + partition}
			contender, err := c.open(t.Context())
			require.NoError(t, err)
			close(way.cuts)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var l *lease.Lease
			for l == nil { // a busy machine takes too long for its session
				l, err = contender.Acquire(ctx, "demo")
				require.NoError(t, ctx.Err(), "%v", err)
			}
			h, err := contender.Holder(ctx, "demo")
			require.NoError(t, err)
			require.Equal(t, l.Token(), h.Token)
			last := lastSign(alive)
			require.True(t, last.Before(h.Acquired), "it showed a sign of life %v after another had the lock",
				last.Sub(h.Acquired))
			t.Logf("dead %v before another had the lock", h.Acquired.Sub(last).Round(time.Millisecond))
			<-ended
			require.Equal(t, statusLost, first.ProcessState.ExitCode(), said.String())
			require.Contains(t, said.String(), "expired")
			_ = l.Release(ctx) // which a busy machine may leave to the TTL
			_ = contender.Close(ctx)
		})
	}
}

func fileStore(t *testing.T) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "locks.db")
}

func TestSignalsArePassedOn(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			cmd := command(t, fileStore(t), "run", "demo", "--", "sh", "-c", "touch begun; exec sleep 60")
			cmd.Dir = folder
			require.NoError(t, cmd.Start())
			require.Eventually(t, exists(folder, "begun"), time.Minute, 10*time.Millisecond)
			require.NoError(t, cmd.Process.Signal(s))
			_ = cmd.Wait()
			require.Equal(t, statusSignal+int(s), cmd.ProcessState.ExitCode())
		})
	}
}

func TestASignalThatIsIgnoredStaysIgnored(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := command(t, fileStore(t))
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c",
		`trap "" HUP; exec "$0" run demo -- sh -c "touch begun; exec sleep 60"`, self}
	cmd.Dir = folder
	require.NoError(t, cmd.Start())
	require.Eventually(t, exists(folder, "begun"), time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	require.Equal(t, statusSignal+int(syscall.SIGTERM), cmd.ProcessState.ExitCode(), "as under nohup")
}

func TestASignalEndsTheWaitForAMinHold(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	cmd := command(t, fileStore(t), "run", "--min-hold", "10m", "demo", "--", "touch", "ran")
	cmd.Dir = folder
	require.NoError(t, cmd.Start())
	require.Eventually(t, exists(folder, "ran"), time.Minute, 10*time.Millisecond)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for len(ended) == 0 {
		_ = cmd.Process.Signal(syscall.SIGTERM) // until it has come after the command's end
		time.Sleep(50 * time.Millisecond)
	}
	<-ended
	require.Equal(t, statusSignal+int(syscall.SIGTERM), cmd.ProcessState.ExitCode())
}

func TestWhatIsLeftInTheGroupIsDeadBeforeAnotherHoldsTheLock(t *testing.T) {
	t.Parallel()
	store, alive := fileStore(t), filepath.Join(t.TempDir(), "alive")
	self, err := os.Executable()
	require.NoError(t, err)
	first := command(t, store, "run", "--ttl", "6s", "--margin", "1500ms", "demo", "--", "sh", "-c",
		fmt.Sprintf(`env -u %s %s="$1" "$0" & trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done`, asCommand,
			asStubborn), self, alive)
	require.NoError(t, first.Start())
	require.Eventually(t, func() bool { return !lastSign(alive).IsZero() }, time.Minute, 10*time.Millisecond)
	c := &cli{err: io.Discard, ttl: 6 * time.Second, output: "table", store: store}
	contender, err := c.open(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h, err := contender.Inspect(ctx, "demo")
	require.NoError(t, err)
	require.NoError(t, contender.Break(ctx, h))
	l, err := contender.Acquire(ctx, "demo")
	require.NoError(t, err)
	h, err = contender.Holder(ctx, "demo")
	require.NoError(t, err)
	require.Equal(t, l.Token(), h.Token)
	_ = first.Wait()
	require.Equal(t, statusLost, first.ProcessState.ExitCode())
	last := lastSign(alive)
	require.True(t, last.Before(h.Acquired), "it showed a sign of life %v after another had the lock",
		last.Sub(h.Acquired))
	require.NoError(t, l.Release(ctx))
	require.NoError(t, contender.Close(ctx))
}

func exists(folder, name string) func() bool {
	return func() bool {
		_, err := os.Stat(filepath.Join(folder, name))
		return err == nil
	}
}

func TestASignalBeforeTheGrantStartsNothing(t *testing.T) {
	t.Parallel()
	folder, store := t.TempDir(), fileStore(t)
	first := command(t, store, "run", "demo", "--", "sh", "-c", "touch begun; exec sleep 60")
	first.Dir = folder
	require.NoError(t, first.Start())
	require.Eventually(t, exists(folder, "begun"), time.Minute, 10*time.Millisecond)
	said := &lockedBuffer{}
	second := command(t, store, "run", "demo", "--", "touch", "second")
	second.Dir, second.Stderr = folder, said
	require.NoError(t, second.Start())
	require.Eventually(t, func() bool { return strings.Contains(said.String(), "waiting for demo") }, time.Minute,
		10*time.Millisecond)
	require.NoError(t, second.Process.Signal(syscall.SIGTERM))
	_ = second.Wait()
	require.Equal(t, statusSignal+int(syscall.SIGTERM), second.ProcessState.ExitCode())
	require.NoError(t, first.Process.Signal(syscall.SIGTERM))
	_ = first.Wait()
	require.False(t, exists(folder, "second")())
}

// lockedBuffer is a buffer that may be read while it is written.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func TestTheLockIsKeptUntilTheGroupIsEmpty(t *testing.T) {
	t.Parallel()
	folder, store := t.TempDir(), fileStore(t)
	cmd := command(t, store, "run", "demo", "--", "sh", "-c",
		"(until test -e stop; do sleep 0.05; done; touch late) & touch begun")
	cmd.Dir = folder
	require.NoError(t, cmd.Start())
	require.Eventually(t, exists(folder, "begun"), time.Minute, 10*time.Millisecond)
	for range 5 {
		try := command(t, store, "run", "-n", "demo", "--", "true")
		_ = try.Run()
		require.Equal(t, statusNotAcquired, try.ProcessState.ExitCode(), "what it started in the background is still at work")
	}
	require.NoError(t, os.WriteFile(filepath.Join(folder, "stop"), nil, 0o600))
	require.NoError(t, cmd.Wait())
	require.True(t, exists(folder, "late")())
	require.NoError(t, command(t, store, "run", "-n", "demo", "--", "true").Run())
}

func TestTheCommandDiesWithItsWrapper(t *testing.T) {
	t.Parallel()
	alive := filepath.Join(t.TempDir(), "alive")
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := command(t, fileStore(t), "run", "demo", "--", "env", "-u", asCommand, asStubborn+"="+alive, self)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return !lastSign(alive).IsZero() }, time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool {
		before := lastSign(alive)
		time.Sleep(100 * time.Millisecond)
		return lastSign(alive).Equal(before)
	}, time.Minute, time.Millisecond)
}

// stripped builds the command as it is given to people.
func stripped(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dynalock")
	//nolint:gosec // the path is the test's
	out, err := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// The time is from exec to the command's start, with a free lock, and a session to
// be opened. On a machine that does nothing else it is to be at most 60 ms on SQLite
// and 150 ms on DynamoDB Local.
func TestItIsSmallAndSoonAtTheCommand(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	binary := stripped(t)
	info, err := os.Stat(binary)
	require.NoError(t, err)
	t.Logf("the binary, stripped: %.1f MB", float64(info.Size())/1e6)
	require.Less(t, info.Size(), int64(30e6))
	for name, store := range map[string]string{
		"SQLite": fileStore(t), "DynamoDB Local": localStore(t, dynamolocal.Endpoint(t)) + "&partition=" + newPartition(),
	} {
		var took []time.Duration
		for range 21 { // the first makes the store
			cmd := command(t, store, "run", "-q", "demo", "--", "date", "+%s%N")
			cmd.Path = binary
			began := time.Now()
			out, err := cmd.Output()
			require.NoError(t, err)
			var nanos int64
			_, err = fmt.Sscan(string(out), &nanos)
			require.NoError(t, err)
			took = append(took, time.Unix(0, nanos).Sub(began))
		}
		m := median(took[1:])
		t.Logf("from exec to the command's start on %s: median %v", name, m.Round(time.Millisecond))
		require.Less(t, m, 20*time.Second)
	}
}
