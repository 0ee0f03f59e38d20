package dynamokv_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

// dated gives an answer the Date of a server whose clock is off by d from ours.
func dated(response *http.Response, d time.Duration) *http.Response {
	response.Header.Set("Date", time.Now().Add(d).UTC().Format(http.TimeFormat))
	return response
}

// signedAt is the time that a request was signed at.
func signedAt(t *testing.T, r *http.Request) time.Time {
	t.Helper()
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	require.NoError(t, err)
	return at
}

// refusals are how DynamoDB refuses a request that was signed by a wrong clock.
var refusals = []struct {
	status        int
	code, message string
	offset        time.Duration // of DynamoDB's clock from ours
}{
	{400, "InvalidSignatureException",
		"Signature expired: 20000101T000000Z is now earlier than 20000101T024500Z (20000101T030000Z - 15 min.)",
		3 * time.Hour},
	{400, "InvalidSignatureException",
		"Signature not yet current: 20000101T030000Z is still later than 20000101T001500Z (20000101T000000Z + 15 min.)",
		-3 * time.Hour},
	{403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.",
		3 * time.Hour},
	{403, "RequestExpired", "Request has expired.", 3 * time.Hour},
}

// TestAWrongClockIsRefusedAndNotMended: the SDK could learn the offset from the
// answer's Date, and go on as if nothing were wrong.
func TestAWrongClockIsRefusedAndNotMended(t *testing.T) {
	t.Parallel()
	for _, refusal := range refusals {
		for _, op := range wireOperations {
			t.Run(refusal.code+"/"+refusal.offset.String()+"/"+op.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r := newMemRig(t)
					var previous *kv.KVPair
					if op.name != "create" {
						previous = create(t, r.Store)
					}
					before, _ := r.another(t).List(t.Context(), "")
					r.wire.inject(func(_ int, request *http.Request, _ next) (*http.Response, error) {
						require.WithinDuration(t, time.Now(), signedAt(t, request), time.Second)
						return dated(awsError(request, refusal.status, refusal.code, refusal.message), refusal.offset), nil
					})
					for n := range 3 {
						requireOnly(t, op.run(t.Context(), r, previous), kv.ErrClock)
						require.Equal(t, n+1, r.wire.requests(), "no use to try again")
					}
					after, err := r.another(t).List(t.Context(), "")
					require.NoError(t, err)
					require.Equal(t, before, after)
				})
			})
		}
	}
}

// TestAnAnswerOfAnotherTimeIsAnAnswer: as long as DynamoDB takes our signatures
// our clock is right, whatever a Date says; and no later request is signed by
// that.
func TestAnAnswerOfAnotherTimeIsAnAnswer(t *testing.T) {
	t.Parallel()
	for _, op := range wireOperations {
		synctest.Test(t, func(t *testing.T) {
			r := newMemRig(t)
			var previous *kv.KVPair
			if op.name != "create" {
				previous = create(t, r.Store)
			}
			r.wire.inject(func(n int, request *http.Request, send next) (*http.Response, error) {
				require.WithinDuration(t, time.Now(), signedAt(t, request), time.Second)
				if n == 1 {
					return dated(internal(request), 3*time.Hour), nil
				}
				response, err := send(request)
				return dated(response, 3*time.Hour), err
			})
			require.NoError(t, op.run(t.Context(), r, previous))
			require.Equal(t, 2, r.wire.requests())
			_, err := r.List(t.Context(), "")
			require.NoError(t, err)
		})
	}
}

// TestAClientThatHasLearntAnOffsetDoesNotUseItForUs: the caller's own requests
// with the same client may mend its clock.
func TestAClientThatHasLearntAnOffsetDoesNotUseItForUs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var signed []time.Duration
		w := &wire{fault: func(_ int, request *http.Request, _ next) (*http.Response, error) {
			signed = append(signed, signedAt(t, request).Sub(time.Now().Truncate(time.Second)))
			return dated(answer(request, 200, "{}"), 3*time.Hour), nil
		}}
		client := newClient("http://dynamodb.invalid", w)
		own := func() {
			_, err := client.ListTables(t.Context(), &dynamodb.ListTablesInput{Limit: aws.Int32(1)})
			require.NoError(t, err)
		}
		own()
		own()
		s := openOn(t, client)
		require.NoError(t, s.Put(t.Context(), "key"))
		require.Equal(t, []time.Duration{0, 3 * time.Hour, 0}, signed, "the second shows that this SDK does learn")
	})
}
