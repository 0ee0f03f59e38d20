package dynamokv_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// sentinels are the errors of package kv that say how a request fared. An error
// matches one at most.
var sentinels = []error{kv.ErrKeyExists, kv.ErrKeyModified, kv.ErrKeyNotFound, kv.ErrUncertain, kv.ErrClock,
	kv.ErrThrottled, kv.ErrUnavailable, kv.ErrRefused, kv.ErrUnsupported, kv.ErrFormat,
}

// requireOnly requires that err matches want, nil: none, and no other sentinel.
func requireOnly(t *testing.T, err, want error) {
	t.Helper()
	require.Error(t, err)
	for _, s := range sentinels {
		require.Equal(t, want != nil && errors.Is(want, s), errors.Is(err, s), "%v: is it %v?", err, s)
	}
}

func TestWhatAnErrorOfDynamoDBMeansForAWrite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code, message string
		status        int
		want          error
		once          bool // it is no use to try again
	}{
		{"ProvisionedThroughputExceededException", "", 400, kv.ErrThrottled, false},
		{"ThrottlingException", "", 400, kv.ErrThrottled, false},
		{"RequestLimitExceeded", "", 400, kv.ErrThrottled, false},
		{"InternalServerError", "", 500, kv.ErrUncertain, false},
		{"ServiceUnavailable", "", 503, kv.ErrUncertain, false},
		{"TransactionConflictException", "", 400, kv.ErrUnavailable, false},
		{"ResourceNotFoundException", "", 400, kv.ErrRefused, true},
		{"ValidationException", "", 400, kv.ErrUnsupported, true},
		{"AccessDeniedException", "", 400, kv.ErrRefused, true},
		{"UnrecognizedClientException", "", 400, kv.ErrRefused, true},
		{"KMSAccessDeniedException", "", 400, kv.ErrRefused, true},
		{"InvalidSignatureException", "The request signature we calculated does not match", 400, kv.ErrRefused, true},
		{"InvalidSignatureException", "Signature expired: 20000101T000000Z is now earlier than 20000101T001500Z", 400,
			kv.ErrClock, true},
		{"InvalidSignatureException", "Signature not yet current: 20000101T010000Z", 400, kv.ErrClock, true},
		{"RequestTimeTooSkewed", "", 403, kv.ErrClock, true},
	} {
		t.Run(c.code+c.message, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, w := offlineStore(t, func(_ int, r *http.Request) (*http.Response, error) {
					return awsError(r, c.status, c.code, c.message), nil
				})
				start := time.Now()
				_, err := s.AtomicPut(t.Context(), "key")
				requireOnly(t, err, c.want)
				if c.once {
					require.Equal(t, 1, w.requests())
					return
				}
				require.Equal(t, 10*time.Second, time.Since(start), "the budget of a context without a deadline")
				require.Greater(t, w.requests(), 10)
			})
		})
	}
}

func TestARefusalAfterALostAnswerIsUncertain(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"ThrottlingException", "ResourceNotFoundException", "RequestTimeTooSkewed",
		"AccessDeniedException"} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := offlineStore(t, func(n int, r *http.Request) (*http.Response, error) {
				if n == 1 {
					return nil, errCut
				}
				return awsError(r, 400, code, ""), nil
			})
			_, err := s.AtomicPut(t.Context(), "key")
			requireOnly(t, err, kv.ErrUncertain)
		})
	}
}

func TestReadsAreNeverUncertain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, w := offlineStore(t, func(int, *http.Request) (*http.Response, error) { return nil, errCut })
		_, err := s.Get(t.Context(), "key")
		requireOnly(t, err, kv.ErrUnavailable)
		require.Greater(t, w.requests(), 10)
		_, err = s.List(t.Context(), "key")
		requireOnly(t, err, kv.ErrUnavailable)
	})
}

func TestAttemptsOfAWriteAreTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		s, w := offlineStore(t, func(_ int, r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			bodies = append(bodies, string(body))
			return nil, errors.Join(errCut, err)
		})
		fields := kv.WithFields(kv.Fields{"a": 1, "b": 2, "c": "3"})
		_, err := s.AtomicPut(t.Context(), "key", fields, kv.WithTTL(time.Minute))
		requireOnly(t, err, kv.ErrUncertain)
		require.Greater(t, w.requests(), 10)
		for _, body := range bodies { // the SDK shuffles maps
			require.JSONEq(t, bodies[0], body)
		}
	})
}

func TestAHungAttemptEndsAtItsTimeout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options []kv.ReadOption
		want    time.Duration
	}{
		{nil, 5 * time.Second},
		{[]kv.ReadOption{kv.WithAttemptTimeout(100 * time.Millisecond)}, 100 * time.Millisecond},
		{[]kv.ReadOption{kv.WithAttemptTimeout(8 * time.Second)}, 8 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			var took []time.Duration
			s, _ := offlineStore(t, func(_ int, r *http.Request) (*http.Response, error) {
				start := time.Now()
				response, err := hang(r)
				took = append(took, time.Since(start))
				return response, err
			})
			_, err := s.Get(t.Context(), "key", c.options...)
			require.Error(t, err)
			require.Equal(t, c.want, took[0])
		})
	}
}

func TestAnEndedContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, w := offlineStore(t, func(_ int, r *http.Request) (*http.Response, error) { return hang(r) })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := s.Put(ctx, "key")
		requireOnly(t, err, kv.ErrUncertain)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, w.requests())

		err = s.Put(ctx, "key") // nothing is sent
		requireOnly(t, err, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = s.Get(ctx, "key")
		requireOnly(t, err, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 1, w.requests())
	})
}

func TestAContextThatEndsWhileThrottledSettlesTheWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, _ := offlineStore(t, func(n int, r *http.Request) (*http.Response, error) {
			if n == 3 {
				cancel()
			}
			return throttle(r), nil
		})
		err := s.Put(ctx, "key")
		requireOnly(t, err, kv.ErrThrottled)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestNothingIsSentLaterThanAMinuteAfterTheStart(t *testing.T) {
	t.Parallel()
	for _, between := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			wall := &steppedClock{Clock: clock.System}
			s, w := offlineStore(t, func(int, *http.Request) (*http.Response, error) {
				wall.offset = 61 * time.Second // the machine was suspended
				return nil, errCut
			}, dynamokv.WithClock(wall))
			sent, want := 1, kv.ErrUncertain
			if between { // suspended between the operation's start and the wire: nothing is sent
				sent, want = 0, kv.ErrUnavailable
				wall.steps = 2
			}
			_, err := s.AtomicPut(t.Context(), "key")
			requireOnly(t, err, want)
			require.Equal(t, sent, w.requests())
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s, _ := offlineStore(t, func(int, *http.Request) (*http.Response, error) { return nil, errCut })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		requireOnly(t, s.Put(ctx, "key"), kv.ErrUncertain)
		require.LessOrEqual(t, time.Since(start), time.Minute+2*time.Second)
	})
}

// steppedClock is a clock whose wall clock steps by a minute and a bit at the
// reading after steps more, if steps is not 0.
type steppedClock struct {
	clock.Clock
	offset time.Duration
	steps  int
}

func (c *steppedClock) Now() clock.Reading {
	now := c.Clock.Now()
	now.Wall = now.Wall.Add(c.offset)
	if c.steps > 0 {
		if c.steps--; c.steps == 0 {
			c.offset = 61 * time.Second
		}
	}
	return now
}

func TestWhatWasNeverSentIsNotUncertain(t *testing.T) {
	t.Parallel()
	t.Run("no connection", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s, w := offlineStore(t, func(int, *http.Request) (*http.Response, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
			})
			err := s.Put(t.Context(), "key")
			requireOnly(t, err, kv.ErrUnavailable)
			require.ErrorContains(t, err, "connection refused")
			require.Greater(t, w.requests(), 10)
		})
	})
	t.Run("no credentials", func(t *testing.T) {
		t.Parallel()
		w := &wire{}
		client := dynamodb.New(dynamodb.Options{
			BaseEndpoint: aws.String("http://dynamodb.invalid"), Region: "us-east-1", HTTPClient: &http.Client{Transport: w},
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{}, errors.New("no credentials anywhere")
			}),
		})
		s, err := dynamokv.New(client, "table")
		require.NoError(t, err)
		err = s.Put(t.Context(), "key")
		requireOnly(t, err, kv.ErrRefused)
		require.ErrorContains(t, err, "no credentials anywhere")
		require.Zero(t, w.requests())
	})
	t.Run("no Region", func(t *testing.T) {
		t.Parallel()
		s, err := dynamokv.New(dynamodb.New(dynamodb.Options{Credentials: credentials{}}), "table")
		require.NoError(t, err)
		requireOnly(t, s.Put(t.Context(), "key"), kv.ErrRefused)
	})
}

func TestAClientThatIgnoresOptionsIsUncertainAboutEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := dynamokv.New(deafClient{}, "table")
		require.NoError(t, err)
		dynamokv.SkipLayout(s)
		requireOnly(t, s.Put(t.Context(), "key"), kv.ErrUncertain)
	})
}

type deafClient struct{ dynamokv.Client }

func (deafClient) UpdateItem(context.Context, *dynamodb.UpdateItemInput,
	...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	return nil, errors.New("who knows")
}

func TestAnEndpointThatReturnsNoItemGetsARead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, w := offlineStore(t, func(_ int, r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetItem") {
				return answer(r, 200,
						`{"Item":{"id":{"S":"dynalock"},"name":{"S":"key"},"version":{"N":"7"},"payload":{"S":"x"},"writer":{"S":"w"}}}`),
					nil
			}
			return awsError(r, 400, "ConditionalCheckFailedException", "The conditional request failed"), nil
		})
		_, err := s.AtomicPut(t.Context(), "key")
		requireOnly(t, err, kv.ErrKeyExists)
		var conflict *kv.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, uint64(7), conflict.Current.Version)
		require.Equal(t, 2, w.requests())
	})
}

func TestRowsThatNoDriverWrote(t *testing.T) {
	t.Parallel()
	for _, attributes := range []string{
		`"payload":{"S":"x"},"writer":{"S":"w"}`,
		`"version":{"S":"7"},"payload":{"S":"x"},"writer":{"S":"w"}`,
		`"version":{"N":"0"},"payload":{"S":"x"},"writer":{"S":"w"}`,
		`"version":{"N":"1.5"},"payload":{"S":"x"},"writer":{"S":"w"}`,
		`"version":{"N":"99999999999999999999999"},"payload":{"S":"x"},"writer":{"S":"w"}`,
		`"version":{"N":"7"},"writer":{"S":"w"}`,
		`"version":{"N":"7"},"payload":{"N":"1"},"writer":{"S":"w"}`,
		`"version":{"N":"7"},"payload":{"S":"x"}`,
		`"version":{"N":"7"},"payload":{"S":"x"},"writer":{"S":"w"},"deadline":{"S":"soon"}`,
		`"version":{"N":"7"},"payload":{"S":"x"},"writer":{"S":"w"},"deadline":{"N":"-1"}`,
		`"version":{"N":"7"},"payload":{"S":"x"},"writer":{"S":"w"},"deadline":{"N":"18446744073709551615"}`,
		`"version":{"N":"7"},"payload":{"S":"x"},"writer":{"S":"w"},"deleted":{"BOOL":false}`,
		`"version":{"N":"7"},"payload":{"S":"x"},"writer":{"S":"w"},"field":{"L":[]}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := offlineStore(t, always(attributes))
			_, err := s.Get(t.Context(), "key")
			requireOnly(t, err, kv.ErrFormat)
			var format *kv.FormatError
			require.ErrorAs(t, err, &format)
			require.Equal(t, "key", format.Key)
			_, err = s.List(t.Context(), "")
			requireOnly(t, err, kv.ErrFormat)
			_, err = s.AtomicPut(t.Context(), "key")
			requireOnly(t, err, kv.ErrFormat)
		})
	}
}

// always answers as if the row of "key", with these attributes, had always been
// there and failed every condition.
func always(attributes string) func(int, *http.Request) (*http.Response, error) {
	row := `{"id":{"S":"dynalock"},"name":{"S":"key"},` + attributes + `}`
	return func(_ int, r *http.Request) (*http.Response, error) {
		switch target := r.Header.Get("X-Amz-Target"); {
		case strings.HasSuffix(target, ".GetItem"):
			return answer(r, 200, `{"Item":`+row+`}`), nil
		case strings.HasSuffix(target, ".Query"):
			return answer(r, 200, `{"Items":[`+row+`],"Count":1,"ScannedCount":1}`), nil
		default:
			return answer(r, 400, `{"__type":"x#ConditionalCheckFailedException","message":"","Item":`+row+`}`), nil
		}
	}
}
