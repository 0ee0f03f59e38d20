package dynamokv_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

// writeCase is a conditional write whose faults are tried.
type writeCase struct {
	name string
	// setup makes what previous the write needs.
	setup func(t *testing.T, s kv.Store) *kv.KVPair
	write func(ctx context.Context, s kv.Store, previous *kv.KVPair) error
}

func create(t *testing.T, s kv.Store) *kv.KVPair {
	p, err := s.AtomicPut(t.Context(), "key", kv.WithString("old"))
	require.NoError(t, err)
	return p
}

var writeCases = []writeCase{
	{"create", func(*testing.T, kv.Store) *kv.KVPair { return nil },
		func(ctx context.Context, s kv.Store, _ *kv.KVPair) error {
			_, err := s.AtomicPut(ctx, "key", kv.WithString("new"))
			return err
		}},
	{"swap", create, func(ctx context.Context, s kv.Store, previous *kv.KVPair) error {
		_, err := s.AtomicPut(ctx, "key", kv.WithString("new"), kv.WithPrevious(previous))
		return err
	}},
	{"delete", create, func(ctx context.Context, s kv.Store, previous *kv.KVPair) error {
		return s.AtomicDelete(ctx, "key", previous)
	}},
	{"put", create, func(ctx context.Context, s kv.Store, _ *kv.KVPair) error {
		return s.Put(ctx, "key", kv.WithString("new"))
	}},
	{"blind delete", create, func(ctx context.Context, s kv.Store, _ *kv.KVPair) error { return s.Delete(ctx, "key") }},
}

func TestWritesSurviveOneFault(t *testing.T) {
	t.Parallel()
	faults := map[string]func(r *http.Request, send next) (*http.Response, error){
		"answer cut after the write": cutAnswer,
		"500 after the write": func(r *http.Request, send next) (*http.Response, error) {
			_, _ = cutAnswer(r, send)
			return awsError(r, 500, "InternalServerError", "internal"), nil
		},
		"500 before the write": func(r *http.Request, _ next) (*http.Response, error) {
			return awsError(r, 500, "InternalServerError", "internal"), nil
		},
		"hang":     func(r *http.Request, _ next) (*http.Response, error) { return hang(r) },
		"throttle": func(r *http.Request, _ next) (*http.Response, error) { return throttle(r), nil },
		"transaction conflict": func(r *http.Request, _ next) (*http.Response, error) {
			return awsError(r, 400, "TransactionConflictException", "busy"), nil
		},
		"none": nil,
	}
	for name, fault := range faults {
		for _, c := range writeCases {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				s := newRig(t)
				previous := c.setup(t, s.Store)
				s.wire.inject(func(n int, r *http.Request, send next) (*http.Response, error) {
					if n == 1 && fault != nil {
						return fault(r, send)
					}
					return send(r)
				})
				require.NoError(t, c.write(t.Context(), s, previous))
				want := 2
				if fault == nil {
					want = 1
				}
				require.Equal(t, want, s.wire.requests())
				requireWritten(t, s, c.name)
			})
		}
	}
}

// requireWritten reads what the write of a case should have left.
func requireWritten(t *testing.T, s kv.Store, name string) {
	t.Helper()
	p, err := s.Get(t.Context(), "key")
	if name == "delete" || name == "blind delete" {
		require.ErrorIs(t, err, kv.ErrKeyNotFound)
		return
	}
	require.NoError(t, err)
	require.Equal(t, "new", p.String())
}

func TestALateAttemptOfACreateDoesNotBringAKeyBack(t *testing.T) {
	t.Parallel()
	s := newRig(t)
	late := make(chan func(), 1)
	s.wire.inject(func(n int, r *http.Request, send next) (*http.Response, error) {
		if n == 1 { // on the wire for long: it lands when late is called
			again := r.Clone(context.WithoutCancel(r.Context()))
			body, _ := io.ReadAll(r.Body)
			again.Body = io.NopCloser(bytes.NewReader(body))
			late <- func() {
				if response, err := send(again); err == nil {
					_ = response.Body.Close()
				}
			}
			return nil, errCut
		}
		return send(r)
	})
	p, err := s.AtomicPut(t.Context(), "key")
	require.NoError(t, err)
	require.NoError(t, s.AtomicDelete(t.Context(), "key", p))
	(<-late)()
	_, err = s.Get(t.Context(), "key")
	require.ErrorIs(t, err, kv.ErrKeyNotFound)
}

// foreign changes the key by another Store between the first attempt and its answer.
func foreign(t *testing.T, other kv.Store,
	change func(t *testing.T, other kv.Store)) func(int, *http.Request, next) (*http.Response, error) {
	return func(n int, r *http.Request, send next) (*http.Response, error) {
		if n != 1 {
			return send(r)
		}
		_, err := cutAnswer(r, send)
		change(t, other)
		return nil, err
	}
}

func TestAConflictAfterALostAnswer(t *testing.T) {
	t.Parallel()
	change := func(t *testing.T, other kv.Store) {
		p, err := other.Get(t.Context(), "key")
		require.NoError(t, err)
		_, err = other.AtomicPut(t.Context(), "key", kv.WithString("theirs"), kv.WithPrevious(p))
		require.NoError(t, err)
	}
	for _, c := range writeCases[:2] {
		t.Run(c.name+" that was applied is uncertain", func(t *testing.T) {
			t.Parallel()
			s := newRig(t)
			previous := c.setup(t, s.Store)
			s.wire.inject(foreign(t, s.another(t), change))
			err := c.write(t.Context(), s, previous)
			var uncertain *kv.UncertainError
			require.ErrorAs(t, err, &uncertain)
			require.Equal(t, "theirs", uncertain.Current.String())
			require.Equal(t, uncertain.Version+1, uncertain.Current.Version)
			require.NotErrorIs(t, err, kv.ErrKeyExists)
			require.NotErrorIs(t, err, kv.ErrKeyModified)
		})
	}
	t.Run("swap that another writer forestalled is not applied", func(t *testing.T) {
		t.Parallel()
		s := newRig(t)
		previous := create(t, s.Store)
		other := s.another(t)
		s.wire.inject(func(n int, r *http.Request, send next) (*http.Response, error) {
			if n != 1 {
				return send(r)
			}
			change(t, other)
			return nil, errCut
		})
		_, err := s.AtomicPut(t.Context(), "key", kv.WithPrevious(previous))
		var conflict *kv.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, "theirs", conflict.Current.String())
		require.Equal(t, 2, s.wire.requests())
	})
	t.Run("create that another writer forestalled is uncertain", func(t *testing.T) {
		t.Parallel()
		s := newRig(t)
		other := s.another(t)
		s.wire.inject(func(n int, r *http.Request, send next) (*http.Response, error) {
			if n != 1 {
				return send(r)
			}
			require.NoError(t, other.Put(t.Context(), "key"))
			return nil, errCut
		})
		_, err := s.AtomicPut(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
	})
}

func TestACreateOverATombstoneOfAClockAheadTriesTwice(t *testing.T) {
	t.Parallel()
	s := newRig(t)
	theirs := s.another(t, ahead(time.Minute))
	p, err := theirs.AtomicPut(t.Context(), "key")
	require.NoError(t, err)
	require.NoError(t, theirs.AtomicDelete(t.Context(), "key", p))
	s.wire.inject(nil)
	mine, err := s.AtomicPut(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, p.Version+2, mine.Version)
	require.Equal(t, 2, s.wire.requests())

	require.NoError(t, s.AtomicDelete(t.Context(), "key", mine))
	s.wire.inject(nil) // W7: the next one knows
	_, err = s.AtomicPut(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, 1, s.wire.requests())
}

func TestALostAnswerOnATombstoneOfAClockAheadIsUncertain(t *testing.T) {
	t.Parallel()
	s := newRig(t)
	theirs := s.another(t, ahead(time.Minute))
	p, err := theirs.AtomicPut(t.Context(), "key")
	require.NoError(t, err)
	require.NoError(t, theirs.AtomicDelete(t.Context(), "key", p))
	s.wire.inject(func(n int, r *http.Request, send next) (*http.Response, error) {
		if n == 1 {
			return cutAnswer(r, send)
		}
		return send(r)
	})
	_, err = s.AtomicPut(t.Context(), "key")
	require.ErrorIs(t, err, kv.ErrUncertain)
}

// That time was up during the last attempt is not all that there is to say.
func TestAnOperationThatIsOutOfTimeTellsWhatItWasRefusedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		r.wire.inject(func(n int, request *http.Request, _ next) (*http.Response, error) {
			if n == 1 {
				return throttle(request), nil
			}
			return hang(request)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := r.Get(ctx, "key")
		require.ErrorIs(t, err, kv.ErrThrottled)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// A create whose answer was lost meets a condition that failed, and the row that
// failed it cannot be read: nothing is known of the first attempt.
func TestAnUnknownAttemptIsNotSettledByAReadThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		r.wire.inject(func(n int, request *http.Request, send next) (*http.Response, error) {
			switch n {
			case 1:
				return cutAnswer(request, send)
			case 2:
				return awsError(request, 400, "ConditionalCheckFailedException", "The conditional request failed"), nil
			}
			return awsError(request, 400, "AccessDeniedException", "no GetItem"), nil
		})
		_, err := r.AtomicPut(t.Context(), "key")
		requireOnly(t, err, kv.ErrUncertain)
		require.Equal(t, 3, r.wire.requests())
	})
}

// A Put that finds no row writes one. Its answer is lost, and the next attempt knows
// the row again.
func TestAPutOverNothingKnowsItsOwnRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		began := time.Now()
		puts := 0
		r.wire.inject(func(_ int, request *http.Request, send next) (*http.Response, error) {
			if request.Header.Get("X-Amz-Target") == "DynamoDB_20120810.PutItem" {
				if puts++; puts == 1 {
					return cutAnswer(request, send)
				}
			}
			return send(request)
		})
		require.NoError(t, r.Put(t.Context(), "key", kv.WithKeepTTL()))
		require.Equal(t, 2, puts)
		pair, err := r.Get(t.Context(), "key")
		require.NoError(t, err)
		require.EqualValues(t, began.UnixMicro()+1, pair.Version, "written once")
	})
}
