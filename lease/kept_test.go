package lease_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

func TestKeepMakesAKeyThatTheNextAcquireFinds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("a")
		h, err := c.Keep(t.Context(), "key", []byte("begin"))
		require.NoError(t, err)
		require.False(t, h.Held())
		require.True(t, h.Kept)
		require.Equal(t, []byte("begin"), h.Value)
		require.NotZero(t, h.Version)
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take(), "no session")

		again, err := c.Keep(t.Context(), "key", []byte("other"))
		require.NoError(t, err)
		require.Equal(t, []byte("begin"), again.Value, "it stays as it is")
		require.Equal(t, h.Version, again.Version)

		l := w.acquire(c, "key")
		require.Equal(t, []byte("begin"), l.Value())
		held, err := c.Keep(t.Context(), "key", nil)
		require.NoError(t, err)
		require.Equal(t, "a", held.Owner)
		require.True(t, l.Held())
	})
}

func TestFromBeginsWithTheRowThatWasRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, link := w.client("a")
		h, err := c.Keep(t.Context(), "key", []byte("v"))
		require.NoError(t, err)
		require.NoError(t, w.acquire(c, "other").Release(t.Context()))
		link.Take()

		l, err := c.TryAcquire(t.Context(), "key", lease.From(h))
		require.NoError(t, err)
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take(), "without From it takes two")
		require.Greater(t, l.Token(), h.Version)
		require.Equal(t, []byte("v"), l.Value())

		b, _ := w.client("b")
		var held *lease.HeldError
		_, err = b.TryAcquire(t.Context(), "key", lease.From(h))
		require.ErrorAs(t, err, &held, "h is old: the row in its place decides")
		require.Equal(t, "a", held.Holder.Owner)

		waiting := make(chan error, 1)
		go func() {
			_, err := b.Acquire(context.Background(), "key", lease.From(&held.Holder))
			waiting <- err
		}()
		time.Sleep(3 * time.Second)
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, <-waiting)
	})
}

func TestFromNeverMakesTheRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		h, err := a.Keep(t.Context(), "key", nil)
		require.NoError(t, err)
		require.NoError(t, a.Discard(t.Context(), h))
		for name, acquire := range map[string]func() (*lease.Lease, error){
			"TryAcquire": func() (*lease.Lease, error) { return a.TryAcquire(t.Context(), "key", lease.From(h)) },
			"Acquire":    func() (*lease.Lease, error) { return a.Acquire(t.Context(), "key", lease.From(h)) },
		} {
			_, err = acquire()
			require.ErrorIs(t, err, lease.ErrChanged, name)
			require.Empty(t, w.rows("lease/"), name)
		}

		h, err = a.Keep(t.Context(), "key", nil)
		require.NoError(t, err)
		l := w.acquire(a, "key")
		waiting := make(chan error, 1)
		go func() {
			_, err := b.Acquire(context.Background(), "key", lease.From(h))
			waiting <- err
		}()
		time.Sleep(2 * time.Second)
		require.NoError(t, w.store.Delete(t.Context(), "lease/key")) // by hand
		require.ErrorIs(t, <-waiting, lease.ErrChanged)
		require.Empty(t, w.rows("lease/"))
		require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
	})
}

func TestFromRefusesAnotherNote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		h, err := a.Keep(t.Context(), "key", nil)
		require.NoError(t, err)
		l, err := a.TryAcquire(t.Context(), "key", lease.From(h))
		require.NoError(t, err)
		waiting := make(chan error, 1)
		go func() {
			_, err := b.Acquire(context.Background(), "key", lease.From(h))
			waiting <- err
		}()
		time.Sleep(2 * time.Second)
		held, err := b.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, b.Annotate(t.Context(), held, []byte("paused")))
		select {
		case err := <-waiting:
			require.ErrorIs(t, err, lease.ErrChanged)
		case <-time.After(5 * time.Second):
			require.Fail(t, "who waits learns of it at its next poll")
		}
		require.True(t, l.Held())
		require.NoError(t, l.Release(t.Context()))
		_, err = b.TryAcquire(t.Context(), "key", lease.From(h))
		require.ErrorIs(t, err, lease.ErrChanged)
		now, err := b.Holder(t.Context(), "key")
		require.NoError(t, err)
		_, err = b.TryAcquire(t.Context(), "key", lease.From(now))
		require.NoError(t, err)
	})
}

func TestR19NoteOutlivesWhatItsHolderWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		note := func(text string) {
			h, err := b.Holder(t.Context(), "key")
			require.NoError(t, err)
			require.NoError(t, b.Annotate(t.Context(), h, []byte(text)))
		}
		requireNote := func(text string) *lease.Holder {
			h, err := b.Holder(t.Context(), "key")
			require.NoError(t, err)
			require.Equal(t, text, string(h.Note))
			return h
		}
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		note("one")
		require.True(t, l.Held())
		h := requireNote("one")
		require.Equal(t, l.Token(), h.Token, "the acquisition is the same")
		require.NoError(t, l.Update(t.Context(), []byte("checkpoint")))
		requireNote("one")
		note("two")
		require.NoError(t, l.ReleaseWith(t.Context(), []byte("last")))
		h = requireNote("two")
		require.False(t, h.Held())
		require.Equal(t, "last", string(h.Value))
		next := w.acquire(b, "key")
		require.Greater(t, next.Token(), l.Token())
		requireNote("two")
		require.NoError(t, next.Release(t.Context()))
		note("")
		requireNote("")
	})
}

func TestChangesOfAKeptKeyNameWhatTheyNeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		h, err := a.Keep(t.Context(), "key", []byte("v"))
		require.NoError(t, err)

		require.NoError(t, a.Replace(t.Context(), h, []byte("w")))
		for name, change := range map[string]func() error{
			"Replace":  func() error { return a.Replace(t.Context(), h, nil) },
			"Annotate": func() error { return a.Annotate(t.Context(), h, nil) },
			"Discard":  func() error { return a.Discard(t.Context(), h) },
		} {
			require.ErrorIs(t, change(), lease.ErrChanged, name)
		}
		l := w.acquire(a, "key")
		require.Equal(t, "w", string(l.Value()))
		held, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.ErrorIs(t, a.Replace(t.Context(), held, nil), lease.ErrHeld)
		b, _ := w.client("b")
		require.ErrorIs(t, b.Discard(t.Context(), held), lease.ErrHeld)
		require.True(t, l.Held())

		plain := w.acquire(a, "plain")
		plainHolder, err := a.Holder(t.Context(), "plain")
		require.NoError(t, err)
		nothing, err := a.Holder(t.Context(), "nothing")
		require.NoError(t, err)
		require.Zero(t, nothing.Version)
		for _, h := range []*lease.Holder{nil, {Key: "key", Kept: true}, plainHolder, nothing} {
			require.ErrorIs(t, a.Replace(t.Context(), h, nil), lease.ErrInvalid)
			require.ErrorIs(t, a.Annotate(t.Context(), h, nil), lease.ErrInvalid)
		}
		for _, h := range []*lease.Holder{nil, {Key: "key", Kept: true}, nothing} {
			require.ErrorIs(t, a.Discard(t.Context(), h), lease.ErrInvalid)
		}
		require.ErrorIs(t, a.Discard(t.Context(), plainHolder), lease.ErrHeld)
		require.NoError(t, plain.Release(t.Context()))
		require.ErrorContains(t, a.Annotate(t.Context(), held, bytes.Repeat([]byte("x"), lease.MaxNoteSize+1)), "1024")
		_, err = a.Keep(t.Context(), "", nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
		_, err = a.Keep(t.Context(), "big", make([]byte, lease.MaxValueSize+1))
		require.ErrorIs(t, err, lease.ErrInvalid)
		for _, from := range []lease.AcquireOption{lease.From(nil), lease.From(nothing), lease.From(held)} {
			_, err = a.TryAcquire(t.Context(), "other", from)
			require.ErrorIs(t, err, lease.ErrInvalid)
		}
	})
}

func TestDiscardTakesTheKeyOfADeadHolder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		_, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		link.SetCut(true)
		h, err := b.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.ErrorIs(t, b.Discard(t.Context(), h), lease.ErrHeld, "it was not watched yet")
		require.Eventually(t, func() bool { return b.Discard(t.Context(), h) == nil }, 2*patience, time.Second)
		require.Empty(t, w.rows("lease/"))
	})
}

func TestDiscardTakesTheRowOfADeadHolderThatKeepsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, watching := w.client("b")
		_, err := a.TryAcquire(t.Context(), "key", lease.WithLockDelay(time.Minute))
		require.NoError(t, err)
		link.SetCut(true)
		h, err := b.Holder(t.Context(), "key")
		require.NoError(t, err)
		dead := func() bool {
			dead, err := b.Dead(t.Context(), h.Session)
			require.NoError(t, err)
			return dead
		}
		for !dead() {
			time.Sleep(time.Second)
		}
		require.ErrorIs(t, b.Discard(t.Context(), h), lease.ErrHeld, "of the lock-delay")
		time.Sleep(time.Minute)
		watching.Take()
		require.NoError(t, b.Discard(t.Context(), h))
		require.Equal(t, map[string]int{"AtomicDelete": 1}, watching.Take())
		require.Empty(t, w.rows("lease/"))
		require.ErrorIs(t, b.Discard(t.Context(), h), lease.ErrChanged)
	})
}

func TestFreeSaysWhetherAnAcquireWouldGetTheKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		requireFree := func(want bool, c *lease.Client, key string) {
			t.Helper()
			h, err := c.Holder(t.Context(), key)
			require.NoError(t, err)
			free, err := c.Free(t.Context(), h)
			require.NoError(t, err)
			require.Equal(t, want, free)
		}
		requireFree(true, a, "key")
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue())
		require.NoError(t, err)
		requireFree(false, a, "key")
		requireFree(false, b, "key")
		require.NoError(t, l.Release(t.Context()))
		link.Take()
		requireFree(true, a, "key")
		require.Equal(t, map[string]int{"Get": 1}, link.Take(), "nobody is asked after")

		// A write that nobody waits for: its answer, and all looks at the row, are lost.
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch {
			case call.Key != "lease/orphan":
				return next(ctx)
			case call.Op == "AtomicPut":
				_ = next(ctx)
			}
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		})
		_, err = a.TryAcquire(t.Context(), "orphan")
		require.ErrorIs(t, err, errLost)
		h, err := b.Holder(t.Context(), "orphan")
		require.NoError(t, err)
		free, err := a.Free(t.Context(), h)
		require.NoError(t, err)
		require.True(t, free, "a's own")
		requireFree(false, b, "orphan")
		link.SetIntercept(nil)

		l = w.acquire(a, "key")
		link.SetCut(true)
		requireFree(false, b, "key")
		time.Sleep(patience)
		requireFree(true, b, "key")
		_, err = a.Free(t.Context(), nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
		_ = l.Release(t.Context())
	})
}

func TestWhatAHolderShowsIsTheCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		value := []byte("value")
		h, err := c.Keep(t.Context(), "key", value)
		require.NoError(t, err)
		copy(value, "XXXXX")
		copy(h.Value, "YYYYY")
		l, err := c.TryAcquire(t.Context(), "key", lease.From(h))
		require.NoError(t, err)
		require.Equal(t, "value", string(l.Value()))

		held, err := c.Holder(t.Context(), "key")
		require.NoError(t, err)
		held.Session, held.Token, held.Note = "", 1, []byte("other")
		require.ErrorIs(t, c.Replace(t.Context(), held, nil), lease.ErrHeld)
		require.NoError(t, c.Annotate(t.Context(), held, []byte("note")))
		now, err := c.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, l.Token(), now.Token)
		require.NoError(t, l.Release(t.Context()))
		now, err = c.Holder(t.Context(), "key")
		require.NoError(t, err)
		now.Note = nil
		_, err = c.TryAcquire(t.Context(), "key", lease.From(now))
		require.NoError(t, err, "its row has the note that was read")
	})
}

// A listing adds its own option to none of the caller's slices.
func TestListingsLeaveTheirCallersOptionsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		w.acquire(c, "key")
		options := make([]kv.ReadOption, 2)
		options[0] = kv.EventuallyConsistent()
		for _, err := range c.Keys(t.Context(), "", options[:1]...) {
			require.NoError(t, err)
		}
		for _, err := range c.Alive(t.Context(), "", options[:1]...) {
			require.NoError(t, err)
		}
		require.Nil(t, options[1])
	})
}

func TestKeysListsWhatIsHeldAndWhatIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, _ := w.client("a")
		_, err := c.Keep(t.Context(), "p/kept", []byte("v"))
		require.NoError(t, err)
		w.acquire(c, "p/held")
		w.acquire(c, "q")
		var keys []string
		for h, err := range c.Keys(t.Context(), "p/", kv.EventuallyConsistent()) {
			require.NoError(t, err)
			require.NotZero(t, h.Version)
			require.Equal(t, h.Key == "p/kept", h.Kept)
			require.Equal(t, h.Key == "p/held", h.Held())
			keys = append(keys, h.Key)
		}
		require.Equal(t, []string{"p/held", "p/kept"}, keys)
	})
}

func TestR19WithReplaceValueReplacesWhatAKeyKeeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		entry := func(c *lease.Client, option lease.AcquireOption) *lease.Lease {
			l, err := c.TryAcquire(t.Context(), "key", lease.KeepValue(), option)
			require.NoError(t, err)
			require.Equal(t, string(l.Value()), string(inspect(t, c, "key").Value))
			return l
		}
		l := entry(a, lease.WithReplaceValue([]byte("first")))
		require.Equal(t, "first", string(l.Value()))
		require.NoError(t, l.Release(t.Context()))
		l = entry(a, lease.WithValue([]byte("second")))
		require.Equal(t, "first", string(l.Value()), "WithValue is for a key that has none")
		require.NoError(t, l.Release(t.Context()))
		link.Take()
		l = entry(a, lease.WithReplaceValue([]byte("third")))
		require.Equal(t, "third", string(l.Value()))
		require.Equal(t, 2, link.Take()["AtomicPut"], "the two of any key that keeps its value")

		got := make(chan *lease.Lease, 1)
		go func() { // handed over (R15)
			l, _ := a.Acquire(t.Context(), "key", lease.WithReplaceValue([]byte("fourth")))
			got <- l
		}()
		synctest.Wait()
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, "fourth", string((<-got).Value()))
		link.SetCut(true)
		var err error
		l, err = b.Acquire(t.Context(), "key", lease.WithReplaceValue(nil))
		require.NoError(t, err)
		require.True(t, l.TakenOver())
		require.Empty(t, l.Value(), "from a dead process too")
	})
}

// The value is made of the very row that the acquiring write replaces, however old
// the one is that From shows.
func TestR19WithNextValueIsAskedAboutTheRowThatIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		var deaths []bool
		next := lease.WithNextValue(func(kept []byte, died bool) ([]byte, error) {
			deaths = append(deaths, died)
			return append(kept, '+'), nil
		})
		l, err := a.TryAcquire(t.Context(), "key", lease.KeepValue(), next)
		require.NoError(t, err)
		require.Equal(t, "+", string(l.Value()), "there was none")
		require.NoError(t, l.Release(t.Context()))
		old, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		l, err = b.TryAcquire(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, l.ReleaseWith(t.Context(), []byte("newest")))

		l, err = a.TryAcquire(t.Context(), "key", lease.From(old), next)
		require.NoError(t, err)
		require.Equal(t, "newest+", string(l.Value()))
		require.Equal(t, "newest+", string(inspect(t, b, "key").Value))
		got := make(chan *lease.Lease, 1)
		go func() { // handed over (R15)
			l, _ := a.Acquire(t.Context(), "key", next)
			got <- l
		}()
		synctest.Wait()
		require.NoError(t, l.Release(t.Context()))
		require.Equal(t, "newest++", string((<-got).Value()))
		require.NotContains(t, deaths, true)
		link.SetCut(true)
		l, err = b.Acquire(t.Context(), "key", next)
		require.NoError(t, err)
		require.Equal(t, "newest+++", string(l.Value()))
		require.True(t, deaths[len(deaths)-1], "a has died with it")
	})
}

func TestR19WithNextValueThatRefusesEndsTheAcquireAndWritesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		refusal := errors.New("not this one")
		refuse := lease.WithNextValue(func([]byte, bool) ([]byte, error) { return nil, refusal })
		_, err := a.Keep(t.Context(), "key", []byte("kept"))
		require.NoError(t, err)
		l := w.acquire(a, "key")
		waits := make(chan error, 1)
		go func() {
			_, err := a.Acquire(t.Context(), "key", refuse)
			waits <- err
		}()
		synctest.Wait()
		require.NoError(t, l.Release(t.Context()))
		err = <-waits
		require.ErrorIs(t, err, refusal)
		require.ErrorIs(t, err, lease.ErrChanged)
		h, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		_, err = a.TryAcquire(t.Context(), "key", lease.From(h), refuse)
		require.ErrorIs(t, err, refusal)
		again, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, h.Version, again.Version)
		require.Equal(t, "kept", string(again.Value))

		large := lease.WithNextValue(func([]byte, bool) ([]byte, error) {
			return make([]byte, lease.MaxValueSize+1), nil
		})
		for _, option := range []lease.AcquireOption{large, lease.WithNextValue(nil)} {
			_, err = a.TryAcquire(t.Context(), "key", option)
			require.ErrorIs(t, err, lease.ErrInvalid)
		}
	})
}
