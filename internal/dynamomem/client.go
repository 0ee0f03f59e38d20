package dynamomem

import (
	"context"
	"errors"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go"
)

// Call is one request on its way.
type Call struct {
	// Operation is the name of the API's, such as "PutItem".
	Operation string
	// Number counts the Client's requests from 1, anew after Inject.
	Number int
	// Input is the SDK's input. It is shared with the caller of the Client: it
	// may be read, not changed.
	Input any

	client *Client
}

// Apply lets the request act on the tables, and returns the SDK's output. It
// may be called never, once or often, by any goroutine.
type Apply func() (any, error)

// Fault is what becomes of a request. It must not return a nil output and a nil error.
type Fault func(ctx context.Context, call Call, apply Apply) (any, error)

// Client has the methods of dynamokv.Client and of dynamokv.Deleter, and
// TransactWriteItems. Make it with Server.Client. It makes one attempt of each
// call, whatever the call's options say. It is safe for concurrent use.
type Client struct {
	server *Server
	late   sync.WaitGroup

	mu    sync.Mutex
	count int
	fault Fault
}

// Client returns a new Client, without faults.
func (s *Server) Client() *Client { return &Client{server: s} }

// Inject counts anew, and lets f act from now on; nil: none.
func (c *Client) Inject(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count, c.fault = 0, f
}

// Requests is how many calls were made since Inject.
func (c *Client) Requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// Wait waits until every request of a Late has landed. No call may be under way.
func (c *Client) Wait() { c.late.Wait() }

// GetItem is that of *dynamodb.Client.
func (c *Client) GetItem(ctx context.Context, in *dynamodb.GetItemInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	return do(ctx, c, "GetItem", in, c.server.getItem)
}

// PutItem is that of *dynamodb.Client.
func (c *Client) PutItem(ctx context.Context, in *dynamodb.PutItemInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	return do(ctx, c, "PutItem", in, c.server.putItem)
}

// UpdateItem is that of *dynamodb.Client.
func (c *Client) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	return do(ctx, c, "UpdateItem", in, c.server.updateItem)
}

// DeleteItem is that of *dynamodb.Client.
func (c *Client) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	return do(ctx, c, "DeleteItem", in, c.server.deleteItem)
}

// Query is that of *dynamodb.Client.
func (c *Client) Query(ctx context.Context, in *dynamodb.QueryInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	return do(ctx, c, "Query", in, c.server.query)
}

// TransactWriteItems is that of *dynamodb.Client.
func (c *Client) TransactWriteItems(
	ctx context.Context, in *dynamodb.TransactWriteItemsInput, _ ...func(*dynamodb.Options),
) (*dynamodb.TransactWriteItemsOutput, error) {
	return do(ctx, c, "TransactWriteItems", in, c.server.transactWriteItems)
}

func do[In, Out any](ctx context.Context, c *Client, operation string, in *In,
	serve func(*In) (*Out, error)) (*Out, error) {
	c.mu.Lock()
	c.count++
	call, fault := Call{Operation: operation, Number: c.count, Input: in, client: c}, c.fault
	c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, &smithy.OperationError{ServiceID: "DynamoDB", OperationName: operation, Err: err}
	}
	apply := func() (any, error) {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		out, err := serve(in)
		if err != nil {
			return nil, Answer(operation, 400, modeled(err))
		}
		return out, nil
	}
	if fault == nil {
		fault = func(_ context.Context, _ Call, apply Apply) (any, error) { return apply() }
	}
	out, err := fault(ctx, call, apply)
	if err != nil {
		return nil, err
	}
	return out.(*Out), nil
}

// modeled lets through the errors that the SDK has; any other is a defect of this package.
func modeled(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		panic(err)
	}
	return err
}
