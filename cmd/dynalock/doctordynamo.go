package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// dateTimeout is for how long an endpoint is asked for the date.
const dateTimeout = 3 * time.Second

// checkClock compares this machine's clock with the Date of an answer of DynamoDB's
// endpoint.
func checkClock(ctx context.Context, spec string) finding {
	rest, ok := strings.CutPrefix(spec, "dynamodb:")
	if !ok {
		return good("clock", "not compared: this store goes by its own or by this machine's")
	}
	endpoint, err := endpointOf(ctx, rest)
	if err != nil {
		return wrong("clock", "%v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dateTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return wrong("clock", "%v", err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return wrong("clock", "not compared: %v", err)
	}
	defer func() { _ = answer.Body.Close() }()
	return compareClocks(answer.Header.Get("Date"), time.Now())
}

// compareClocks judges a clock that shows now by the Date of an answer.
func compareClocks(date string, now time.Time) finding {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return good("clock", "not compared: the endpoint tells no date")
	}
	off := now.Sub(theirs).Round(time.Second)
	if off.Abs() >= wrongClock {
		return wrong("clock", "this machine's clock is off by %v: set it (chrony, ntpd); DynamoDB refuses 15 minutes", off)
	}
	return good("clock", "within %v of the endpoint's", max(off.Abs(), time.Second))
}

func endpointOf(ctx context.Context, rest string) (string, error) {
	_, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", err
	}
	for _, endpoint := range []string{values.Get("endpoint"), os.Getenv("AWS_ENDPOINT_URL_DYNAMODB"),
		os.Getenv("AWS_ENDPOINT_URL")} {
		if endpoint != "" {
			return endpoint, nil
		}
	}
	client, _, _, err := dynamoDB(ctx, rest)
	if err != nil {
		return "", err
	}
	return "https://dynamodb." + client.Options().Region + ".amazonaws.com", nil
}

// uses is what an action of DynamoDB's is for.
var uses = map[string]string{
	"dynamodb:GetItem":            "everything",
	"dynamodb:PutItem":            "locks",
	"dynamodb:Query":              "pools and all that lists",
	"dynamodb:UpdateItem":         "Put and Delete of the K/V API, and kv put and rm",
	"dynamodb:ConditionCheckItem": "transactions that check a lock",
}

// checkPermissions asks for each action of the policy. asked: DynamoDB has answered.
func checkPermissions(ctx context.Context, store *dynamokv.Store) (_ finding, asked bool) {
	denied, err := store.Denied(ctx)
	if err != nil {
		return wrong("permissions", "%v%s", err, remedy(err)), false
	}
	if len(denied) == 0 {
		return good("permissions", "all that dynalock table policy names"), true
	}
	var missing []string
	for _, action := range denied {
		missing = append(missing, fmt.Sprintf("%s (for %s)", action, uses[action]))
	}
	return wrong("permissions", "these credentials lack %s: give them what dynalock table policy prints",
		strings.Join(missing, ", ")), true
}

// checkTable describes the table, where that is allowed. Nothing else needs it.
func checkTable(ctx context.Context, spec string) finding {
	client, table, _, err := dynamoDB(ctx, strings.TrimPrefix(spec, "dynamodb:"))
	if err != nil {
		return wrong("table", "%v", err)
	}
	err = dynamokv.CheckTable(ctx, client, table)
	switch {
	case errors.Is(err, kv.ErrRefused) && !errors.Is(err, dynamokv.ErrTableNotFound):
		return good("table", "not checked, which takes dynamodb:DescribeTable and dynamodb:DescribeTimeToLive: %v", err)
	case err != nil:
		return wrong("table", "%v%s", err, remedy(err))
	}
	return good("table", "%s is active, its keys fit, and what is deleted goes by its time to live", table)
}

// checkDeleted counts the deleted rows that listings read.
func checkDeleted(ctx context.Context, store *dynamokv.Store) finding {
	var many []string
	dead := 0
	for _, prefix := range ours {
		count, err := store.Count(ctx, prefix)
		if err != nil {
			return wrong("deleted", "%v", err)
		}
		dead += count.Dead
		if count.Dead >= manyDeleted {
			many = append(many, fmt.Sprintf("%d of the %d rows under %s", count.Dead, count.Live+count.Dead, prefix))
		}
	}
	if len(many) == 0 {
		return good("deleted", "listings read %d deleted rows", dead)
	}
	return wrong("deleted", "%s are deleted, and each listing reads them until the table's time to live removes them: "+
		"use fewer clients and fewer names of locks for longer, or a shorter dynamokv.WithRetention",
		strings.Join(many, ", "))
}
