package dynamokv_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// storeAt is a Store whose endpoint is url, over net/http's own transport.
func storeAt(t *testing.T, url string) *dynamokv.Store {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	s, err := dynamokv.New(dynamodb.New(dynamodb.Options{
		BaseEndpoint: aws.String(url), Region: "eu-west-1", Credentials: credentials{},
		HTTPClient: &http.Client{Transport: transport},
	}), "table")
	require.NoError(t, err)
	return s
}

// pageOf is an answer that is not DynamoDB's.
func pageOf(r *http.Request, status int) *http.Response {
	page := answer(r, status, "<!DOCTYPE html>")
	page.Header.Set("Content-Type", "text/html")
	return page
}

// counting counts the connections that a listener accepts.
type counting struct {
	net.Listener
	accepted atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

func TestAtFirstContactWhatIsNoDynamoDBIsToldAfterOneAttempt(t *testing.T) {
	t.Parallel()
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<!DOCTYPE html><title>Sign in</title>"))
	})
	forbidden := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<h1>Blocked by policy</h1>", http.StatusForbidden)
	})
	for name, c := range map[string]struct {
		handler http.Handler
		start   func(*httptest.Server)
		scheme  string // of the client, "": the server's
		says    string
	}{
		"a certificate that is not trusted": {page, (*httptest.Server).StartTLS, "", "certificate is not trusted"},
		"a port that speaks plain HTTP":     {page, (*httptest.Server).Start, "https", "does not speak TLS"},
		"a page":                            {page, (*httptest.Server).Start, "", "is no DynamoDB"},
		"a proxy that forbids":              {forbidden, (*httptest.Server).Start, "", "a proxy refuses"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(c.handler)
			l := &counting{Listener: server.Listener}
			server.Listener = l
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			c.start(server)
			defer server.Close()
			url := server.URL
			if c.scheme != "" {
				url = c.scheme + "://" + l.Addr().String()
			}
			s := storeAt(t, url)
			_, err := s.Get(t.Context(), "key")
			requireOnly(t, err, kv.ErrRefused)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "eu-west-1")
			s = storeAt(t, url)
			before := l.accepted.Load()
			_, err = s.AtomicPut(t.Context(), "key")
			requireOnly(t, err, kv.ErrRefused) // the look at the layout comes first, so nothing was written
			require.ErrorContains(t, err, c.says)
			require.Equal(t, int64(1), l.accepted.Load()-before, "one attempt")
		})
	}
}

func TestWhatIsNoDynamoDBIsWaitedOutOnceItHasBeenThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, w := offlineStore(t, func(n int, r *http.Request) (*http.Response, error) {
			switch {
			case n == 1:
				return awsError(r, 400, "ThrottlingException", ""), nil
			case n < 5:
				return pageOf(r, 200), nil
			case n < 8:
				return pageOf(r, 503), nil
			}
			return answer(r, 200, "{}"), nil
		})
		_, err := s.Get(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrKeyNotFound)
		require.Equal(t, 8, w.requests())
	})
}

func TestA503OfWhateverIsThereIsTriedAgainAtFirstContact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, w := offlineStore(t, func(n int, r *http.Request) (*http.Response, error) {
			if n < 4 {
				return pageOf(r, 503), nil
			}
			return answer(r, 200, "{}"), nil
		})
		_, err := s.AtomicPut(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, 4, w.requests())
	})
}

func TestExpiredCredentialsGetOneMoreAttempt(t *testing.T) {
	t.Parallel()
	for renewed, want := range map[bool]error{true: nil, false: kv.ErrRefused} {
		synctest.Test(t, func(t *testing.T) {
			s, w := offlineStore(t, func(n int, r *http.Request) (*http.Response, error) {
				if n == 2 && renewed {
					return answer(r, 200, "{}"), nil
				}
				return awsError(r, 400, "ExpiredTokenException", "the token has expired"), nil
			})
			start := time.Now()
			_, err := s.AtomicPut(t.Context(), "key")
			if want == nil {
				require.NoError(t, err)
			} else {
				requireOnly(t, err, want)
				require.ErrorContains(t, err, "renew them")
			}
			require.Equal(t, 2, w.requests())
			require.Less(t, time.Since(start), time.Second)
		})
	}
}

func TestWhatWasNotWrittenOnceConnectedIsUnavailable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = storeAt(t, "http://"+address).AtomicPut(ctx, "key")
	requireOnly(t, err, kv.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded, "both the store's state and the context's end")
}

func TestAnHTTPClientThatTellsNothingIsUncertain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := offlineStore(t, func(int, *http.Request) (*http.Response, error) {
			return nil, errors.New("tls: handshake failure") // whatever its text says
		})
		_, err := s.AtomicPut(t.Context(), "key")
		requireOnly(t, err, kv.ErrUncertain)
	})
}
