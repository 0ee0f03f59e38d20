package dynamokv_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

const someARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/locks"

func TestPoliciesNameWhatIsNeeded(t *testing.T) {
	t.Parallel()
	type policy struct {
		Version   string
		Statement []struct {
			Sid, Effect, Resource string
			Action                []string
			Condition             map[string]map[string][]string
		}
	}
	read := func(text string, err error) policy {
		require.NoError(t, err)
		var p policy
		require.NoError(t, json.Unmarshal([]byte(text), &p))
		require.Equal(t, "2012-10-17", p.Version)
		require.Len(t, p.Statement, 1)
		require.Equal(t, "Allow", p.Statement[0].Effect)
		require.Equal(t, someARN, p.Statement[0].Resource)
		return p
	}
	keys := func(p policy) []string {
		return p.Statement[0].Condition["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"]
	}

	p := read(dynamokv.Policy(someARN))
	require.Equal(t, []string{"dynalock"}, keys(p))
	require.NotContains(t, p.Statement[0].Action, "dynamodb:DeleteItem")
	p = read(dynamokv.Policy(someARN, dynamokv.WithPartition("team"), dynamokv.WithShards(3), dynamokv.WithRetention(0)))
	require.Equal(t, []string{"team", "team#0", "team#1", "team#2"}, keys(p))
	require.Contains(t, p.Statement[0].Action, "dynamodb:DeleteItem")
	p = read(dynamokv.TablePolicy(someARN))
	require.Contains(t, p.Statement[0].Action, "dynamodb:CreateTable")

	for _, arn := range []string{"", "locks", "arn:aws:s3:::locks", someARN + "/index/i",
		strings.TrimSuffix(someARN, "locks")} {
		_, err := dynamokv.Policy(arn)
		require.ErrorIs(t, err, kv.ErrInvalidOption, arn)
		_, err = dynamokv.TablePolicy(arn)
		require.ErrorIs(t, err, kv.ErrInvalidOption, arn)
	}
	_, err := dynamokv.Policy(someARN, dynamokv.WithShards(0))
	require.ErrorIs(t, err, kv.ErrInvalidOption)
}

func TestDeniedNamesWhatIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	server := dynamomem.New()
	server.CreateTable("locks", "id", "name")
	w := &wire{base: server.Transport()}
	client := newClient("http://memory.invalid", w)
	for _, shards := range []int{1, 4} {
		s, err := dynamokv.New(client, "locks", dynamokv.WithShards(shards))
		require.NoError(t, err)
		w.inject(nil)
		denied, err := s.Denied(t.Context())
		require.NoError(t, err)
		require.Empty(t, denied)
		require.Equal(t, 5, w.requests())

		for action, operation := range map[string]string{
			"ConditionCheckItem": "TransactWriteItems", "GetItem": "GetItem", "PutItem": "PutItem", "Query": "Query",
			"UpdateItem": "UpdateItem",
		} {
			w.inject(func(_ int, r *http.Request, send next) (*http.Response, error) {
				if strings.HasSuffix(r.Header.Get("X-Amz-Target"), "."+operation) {
					return awsError(r, 400, "AccessDeniedException", "not authorized to perform: dynamodb:"+action), nil
				}
				return send(r)
			})
			denied, err := s.Denied(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"dynamodb:" + action}, denied)
		}
		w.inject(nil)
		count, err := s.Count(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, dynamokv.Count{}, count, "not even a layout")
	}

	w.inject(func(_ int, r *http.Request, _ next) (*http.Response, error) {
		return awsError(r, 400, "ResourceNotFoundException", "no table"), nil
	})
	s, err := dynamokv.New(client, "locks")
	require.NoError(t, err)
	_, err = s.Denied(t.Context())
	require.ErrorIs(t, err, dynamokv.ErrTableNotFound)

	s, err = dynamokv.New(struct{ dynamokv.Client }{server.Client()}, "locks")
	require.NoError(t, err)
	denied, err := s.Denied(t.Context())
	require.NoError(t, err, "a client without transactions")
	require.Empty(t, denied)
}

func TestDeniedOnDynamoDBLocal(t *testing.T) {
	t.Parallel()
	endpoint, table := sharedTable(t)
	s, err := dynamokv.New(newClient(endpoint, &wire{base: sharedTransport}), table, dynamokv.WithPartition(t.Name()))
	require.NoError(t, err)
	denied, err := s.Denied(t.Context())
	require.NoError(t, err)
	require.Empty(t, denied)
	count, err := s.Count(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, dynamokv.Count{}, count)
}

func TestCountTellsWhatListingsLookAt(t *testing.T) {
	t.Parallel()
	server := dynamomem.New()
	server.CreateTable("locks", "id", "name")
	stores := map[string]dynamokv.Client{"memory": server.Client()}
	table := "locks"
	if !testing.Short() {
		var endpoint string
		endpoint, table = sharedTable(t)
		server.CreateTable(table, "id", "name")
		stores["DynamoDB Local"] = newClient(endpoint, &wire{base: sharedTransport})
	}
	for name, client := range stores {
		for _, shards := range []int{1, 3} {
			s, err := dynamokv.New(client, table, dynamokv.WithShards(shards),
				dynamokv.WithPartition(t.Name()+string(rune('a'+shards))))
			require.NoError(t, err)
			for _, key := range []string{"a/1", "a/2", "a/3", "b/1"} {
				require.NoError(t, s.Put(t.Context(), key))
			}
			require.NoError(t, s.Delete(t.Context(), "a/1"))
			all := dynamokv.Count{Live: 3, Dead: 1}
			if shards == 1 {
				all.Dead++ // the layout, which is in no shard
			}
			for prefix, want := range map[string]dynamokv.Count{
				"a/": {Live: 2, Dead: 1}, "b/": {Live: 1}, "c/": {}, "": all,
			} {
				count, err := s.Count(t.Context(), prefix)
				require.NoError(t, err)
				require.Equal(t, want, count, "%s, %d shards: %q", name, shards, prefix)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := dynamokv.New(server.Client(), "locks")
	require.NoError(t, err)
	_, err = s.Count(ctx, "")
	require.ErrorIs(t, err, context.Canceled)
}
