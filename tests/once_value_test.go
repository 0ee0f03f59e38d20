package tests_test

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// askForValues has a process's callers ask for 25 values.
func askForValues(ctx context.Context, client *lease.Client, say func(recipeEvent)) error {
	callers, err := strconv.Atoi(os.Getenv(recipeCallers))
	if err != nil {
		return err
	}
	once := lock.NewOnce(client, "webhook", lock.Wait())
	var all sync.WaitGroup
	errs := make([]error, callers)
	for caller := range errs {
		all.Go(func() {
			for _, i := range rand.Perm(25) {
				id := fmt.Sprint("id-", i)
				for {
					value, err := lock.OnceValue(ctx, once, id, func(context.Context, *lease.Lease) (string, error) {
						value := crand.Text()
						say(recipeEvent{Key: id, Value: value, Computed: true})
						return value, nil
					})
					if value != "" {
						say(recipeEvent{Key: id, Value: value})
					}
					if errors.Is(err, lock.ErrAbandoned) || errors.Is(err, lock.ErrFailed) {
						errs[caller] = err // it will not change any more
						return
					}
					if err == nil {
						break
					}
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Fifty callers ask for 25 values, while answers and requests are lost. They are
// in ten processes, and in fifty with DYNALOCK_TEST_LONG=1.
func TestOnceValueOfProcesses(t *testing.T) {
	recipeStores(t, func(t *testing.T, where string) {
		processes, callers := 10, 5
		if long() {
			processes, callers = 50, 1
		}
		r := startRecipes(t, processes, "once", where, recipeCallers+"="+strconv.Itoa(callers))
		for _, p := range r.all {
			<-p.said
			require.NoError(t, p.Wait())
		}
		values, computed, answers := map[string]string{}, map[string]int{}, 0
		for _, e := range r.said {
			require.Equal(t, cmp.Or(values[e.Key], e.Value), e.Value, e.Key)
			values[e.Key] = e.Value
			if e.Computed {
				computed[e.Key]++
			} else {
				answers++
			}
		}
		require.Len(t, computed, 25)
		for id, n := range computed {
			require.Equal(t, 1, n, id)
		}
		require.GreaterOrEqual(t, answers, 50*25, "every caller gets every value")
		t.Logf("%d processes of %d callers: %d values, %d answers", processes, callers, len(computed), answers)
	})
}
