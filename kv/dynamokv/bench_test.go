package dynamokv_test

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// BenchmarkBesideTheSDK does each operation by the driver and, in turns, by the
// request written by hand on the SDK with the same expressions, on DynamoDB
// Local. It reports the median nanoseconds of both and how many times as fast
// the driver is: sdk/driver.
//
//	go test -run '^$' -bench BesideTheSDK -benchtime 2000x ./kv/dynamokv
func BenchmarkBesideTheSDK(b *testing.B) {
	client := newClient(dynamolocal.Endpoint(b), &wire{base: sharedTransport})
	table := "bench-" + rand.Text()
	require.NoError(b, dynamokv.EnsureTable(b.Context(), client, table))
	s, err := dynamokv.New(client, table)
	require.NoError(b, err)
	h := &byHand{client: client, table: table}
	var pair *kv.KVPair
	for _, c := range []struct {
		name           string
		driver, byHand func(ctx context.Context) error
	}{
		{"put", func(ctx context.Context) error { return s.Put(ctx, "driver", kv.WithString("value")) }, h.put},
		{"get", func(ctx context.Context) error {
			_, err := s.Get(ctx, "driver")
			return err
		}, h.get},
		{"atomic put", func(ctx context.Context) (err error) {
			if pair == nil {
				if pair, err = s.Get(ctx, "driver"); err != nil {
					return err
				}
			}
			pair, err = s.AtomicPut(ctx, "driver", kv.WithString("value"), kv.WithPrevious(pair))
			return err
		}, h.swap},
	} {
		b.Run(c.name, func(b *testing.B) { interleave(b, c.driver, c.byHand) })
	}
}

// interleave times both, taking turns at going first, and reports medians: what
// else the machine does hits either.
func interleave(b *testing.B, functions ...func(context.Context) error) {
	ctx := b.Context()
	var took [2][]time.Duration
	for n := 0; b.Loop(); n++ {
		for turn := range functions {
			i := (turn + n) % len(functions)
			start := time.Now()
			require.NoError(b, functions[i](ctx))
			took[i] = append(took[i], time.Since(start))
		}
	}
	median := func(i int) float64 {
		slices.Sort(took[i])
		return float64(took[i][len(took[i])/2])
	}
	b.ReportMetric(median(0), "driver-ns")
	b.ReportMetric(median(1), "sdk-ns")
	b.ReportMetric(median(1)/median(0), "ratio")
}

// byHand is what a caller would write who needs just these requests.
type byHand struct {
	client  *dynamodb.Client
	table   string
	version int64
}

func s(text string) types.AttributeValue { return &types.AttributeValueMemberS{Value: text} }

func n(number int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(number, 10)}
}

func (h *byHand) key() map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"id": s("hand"), "name": s("key")}
}

func (h *byHand) put(ctx context.Context) error {
	_, err := h.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: aws.String(h.table), Key: h.key(),
		UpdateExpression: aws.String("SET #version = if_not_exists(#version, :micros) + :one, #payload = :payload, #writer = :writer" +
			" REMOVE #deleted, #deadline, #expires"),
		ConditionExpression: aws.String("(attribute_not_exists(#deadline) OR #deadline > :now)"),
		ExpressionAttributeNames: map[string]string{"#version": "version", "#payload": "payload", "#writer": "writer",
			"#deleted": "deleted", "#deadline": "deadline", "#expires": "expires"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":micros": n(time.Now().UnixMicro()), ":one": n(1),
			":payload": s("value"),
			":writer":  s(rand.Text()), ":now": n(time.Now().UnixMilli())},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	return err
}

func (h *byHand) get(ctx context.Context) error {
	out, err := h.client.GetItem(ctx,
		&dynamodb.GetItemInput{TableName: aws.String(h.table), Key: h.key(), ConsistentRead: aws.Bool(true)})
	if err == nil {
		h.version, err = strconv.ParseInt(out.Item["version"].(*types.AttributeValueMemberN).Value, 10, 64)
	}
	return err
}

func (h *byHand) swap(ctx context.Context) error {
	put := h.key()
	put["version"], put["payload"], put["writer"] = n(h.version+1), s("value"), s(rand.Text())
	_, err := h.client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: aws.String(h.table), Item: put,
		ConditionExpression: aws.String("#version = :version AND attribute_not_exists(#deleted) AND" +
			" (attribute_not_exists(#deadline) OR #deadline > :now)"),
		ExpressionAttributeNames: map[string]string{"#version": "version", "#deleted": "deleted",
			"#deadline": "deadline"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":version": n(h.version),
			":now": n(time.Now().UnixMilli())},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	h.version++
	return err
}
