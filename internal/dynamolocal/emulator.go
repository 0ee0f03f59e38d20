package dynamolocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// errPortTaken: another process took the port between its choice and its use.
// The emulator says so and does not exit, and the other process may be another
// emulator, which answers in its place.
var errPortTaken = errors.New("dynamolocal: the port was taken by another process")

// emulator is one that was started.
type emulator struct {
	endpoint string
	// name tells this emulator from another one on its port: it is the origin
	// that this one was told to allow, and names in its answers.
	name    string
	printed output
	exited  <-chan struct{}
}

// await returns when the emulator answers.
func (e *emulator) await(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if e.answers(ctx) {
			return nil
		}
		if strings.Contains(e.printed.String(), "BindException") {
			return errPortTaken
		}
		select {
		case <-e.exited:
			return errors.New("dynamolocal: java exited at once")
		case <-ctx.Done():
			return fmt.Errorf("dynamolocal: DynamoDB Local does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// answers reports whether it is this emulator that answers.
func (e *emulator) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	response, err := e.post(ctx, "ListTables", "{}")
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.Header.Get("Access-Control-Allow-Origin") == e.name
}

// warmUp sends a first request of each kind that matters. They are made with
// credentials of their own, whose tables no test sees.
func (e *emulator) warmUp(ctx context.Context) error {
	for _, request := range [][2]string{
		{"CreateTable", `{"TableName":"warm","BillingMode":"PAY_PER_REQUEST",
			"KeySchema":[{"AttributeName":"k","KeyType":"HASH"}],
			"AttributeDefinitions":[{"AttributeName":"k","AttributeType":"S"}]}`},
		{"PutItem", `{"TableName":"warm","Item":{"k":{"S":"a"}},"ConditionExpression":"attribute_not_exists(k)"}`},
		{"UpdateItem", `{"TableName":"warm","Key":{"k":{"S":"a"}},
			"UpdateExpression":"SET v = :v","ExpressionAttributeValues":{":v":{"N":"1"}}}`},
		{"GetItem", `{"TableName":"warm","Key":{"k":{"S":"a"}}}`},
		{"Query", `{"TableName":"warm",
			"KeyConditionExpression":"k = :k","ExpressionAttributeValues":{":k":{"S":"a"}}}`},
	} {
		response, err := e.post(ctx, request[0], request[1])
		if err != nil {
			return fmt.Errorf("dynamolocal: warming up: %w", err)
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			return fmt.Errorf("dynamolocal: warming up: %w", err)
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("dynamolocal: warming up: %s: %s: %s", request[0], response.Status, body)
		}
	}
	return nil
}

// post sends a request. The emulator does not look at signatures.
func (e *emulator) post(ctx context.Context, operation, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.endpoint, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Origin", e.name)
	request.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	request.Header.Set("Content-Type", "application/x-amz-json-1.0")
	request.Header.Set("Authorization", fmt.Sprintf(
		"AWS4-HMAC-SHA256 Credential=%s/20200101/%s/dynamodb/aws4_request, SignedHeaders=host, Signature=0", warmKey, Region))
	return http.DefaultClient.Do(request)
}

// warmKey is the access key of the requests of this package.
const warmKey = "dynalockwarm"

// output keeps the beginning of what a process prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

const maxOutput = 16 << 10

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p[:min(len(p), maxOutput-o.text.Len())])
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
