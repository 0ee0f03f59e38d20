//go:build unix

package chaos_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
)

// workers is how many processes contend. The first is never harmed, so that
// every key always has a contender that is well.
const workers = 4

// fleet is the workers, and what was done to them.
type fleet struct {
	t        *testing.T
	env      []string
	resource resource
	logs     string
	// kinds are the faults that the victims go through in turn, next counts them.
	kinds []string
	next  atomic.Int64
	slots [workers]*slot

	mu     sync.Mutex
	faults []fault
}

// slot is where one worker after another runs.
type slot struct {
	cmd   *exec.Cmd
	stdin io.Closer // the worker ends with it, however the tests do
	proxy *proxy    // nil: it needs none
}

func (f *fleet) start(s *slot) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), f.env...)
	cmd.Env = append(cmd.Env, envResource+"="+string(f.resource), envLog+"="+f.logs, "GORACE=atexit_sleep_ms=0")
	if s.proxy != nil {
		cmd.Env = append(cmd.Env, envEndpoint+"=http://"+s.proxy.listener.Addr().String())
	}
	proctest.Watch(f.t, cmd, "worker")
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		f.t.Errorf("starting a worker: %v", err)
		return
	}
	s.cmd, s.stdin = cmd, stdin
}

// signal reports whether it could send one: a worker ends by itself only if it has failed.
func (f *fleet) signal(s *slot, signal syscall.Signal) bool {
	err := s.cmd.Process.Signal(signal)
	if err != nil {
		f.t.Errorf("worker %d: %v", s.cmd.Process.Pid, err)
	}
	return err == nil
}

// harm does one fault of a kind to the worker of a slot.
func (f *fleet) harm(s *slot, kind string) {
	done := fault{Kind: kind, PID: s.cmd.Process.Pid, Began: machineTime()}
	switch kind {
	case killed:
		if f.signal(s, syscall.SIGKILL) {
			_ = s.cmd.Wait() // "signal: killed"
		}
		done.Began = machineTime()
		done.Ended = done.Began
		f.start(s)
	case stopped:
		f.signal(s, syscall.SIGSTOP)
		time.Sleep(ttl/2 + rand.N(2*ttl)) // mostly for longer than the TTL
		f.signal(s, syscall.SIGCONT)
		done.Ended = machineTime()
	default:
		s.proxy.turn(weather(kind))
		time.Sleep(ttl/3 + rand.N(2*ttl))
		s.proxy.turn(fair)
		done.Ended = machineTime()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, done)
}

// holds reports whether the worker of a slot was the last to use one of the keys.
func (f *fleet) holds(s *slot) bool {
	for _, key := range keys {
		if last, err := f.resource.last(key); err == nil && last.PID == s.cmd.Process.Pid {
			return true
		}
	}
	return false
}

// storm harms all workers but the first, again and again for d, preferably when
// they hold something.
func (f *fleet) storm(d time.Duration) {
	until := machineTime() + d
	var victims sync.WaitGroup
	for _, s := range f.slots[1:] {
		victims.Go(func() {
			for {
				pause(time.Second)
				for range 100 {
					if f.holds(s) {
						break
					}
					pause(window)
				}
				if machineTime() > until || f.t.Failed() {
					return
				}
				f.harm(s, f.kinds[int(f.next.Add(1)-1)%len(f.kinds)])
			}
		})
	}
	victims.Wait()
}

// killHolder kills a worker, but not the first, that holds something, with nothing else going on.
func (f *fleet) killHolder() {
	for range 1000 {
		for _, s := range f.slots[1:] {
			if f.holds(s) {
				f.harm(s, killed)
				return
			}
		}
		pause(window)
	}
	f.t.Errorf("nobody but the first worker uses anything")
}

// calm waits until every key is used under a new token: they are all granted again.
func (f *fleet) calm(bound time.Duration) {
	began := machineTime()
	for _, key := range keys {
		before, err := f.resource.last(key)
		require.NoError(f.t, err)
		for {
			last, err := f.resource.last(key)
			require.NoError(f.t, err)
			if last.Highest > before.Highest {
				break
			}
			require.Less(f.t, machineTime()-began, bound, "I5: %s is not granted after the storm", key)
			time.Sleep(window)
		}
	}
}

// end ends the workers: with SIGTERM, which they must obey, or in any way if the test has failed.
func (f *fleet) end() {
	for _, s := range f.slots {
		if s == nil || s.cmd == nil || s.cmd.ProcessState != nil {
			continue
		}
		if f.t.Failed() {
			_ = s.cmd.Process.Kill()
		} else {
			f.signal(s, syscall.SIGTERM)
		}
	}
	for _, s := range f.slots {
		if s == nil || s.cmd == nil || s.cmd.ProcessState != nil {
			continue
		}
		pid := s.cmd.Process.Pid
		if err := s.cmd.Wait(); err != nil {
			f.t.Errorf("worker %d: %v", pid, err)
		}
	}
}

// history reads what the workers and the resource have said.
func (f *fleet) history(bound time.Duration) history {
	h := history{writes: map[string][]write{}, faults: f.faults, bound: bound}
	files, err := filepath.Glob(filepath.Join(f.logs, "*"))
	require.NoError(f.t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(f.t, err)
		for line := range strings.Lines(string(text)) {
			if !strings.HasSuffix(line, "\n") {
				break // its process was killed in the middle of it
			}
			var e event
			require.NoError(f.t, json.Unmarshal([]byte(line), &e), "%s: %s", file, line)
			h.events = append(h.events, e)
		}
	}
	for _, key := range keys {
		h.writes[key], err = f.resource.writes(key)
		require.NoError(f.t, err)
	}
	return h
}

// summary says what the faults were.
func (f *fleet) summary() string {
	count := map[string]int{}
	for _, done := range f.faults {
		count[done.Kind]++
	}
	return fmt.Sprint(count)
}
