package dynamokv

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/dynalock/dynalock/kv"
)

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	r, err := s.read(ctx, key, options, true)
	if err != nil {
		return nil, err
	}
	if !r.live(s.clock.Now().Wall) {
		return nil, &kv.NotFoundError{Key: key, Version: r.versionOf()}
	}
	return r.pair, nil
}

// Exists implements kv.Store. It leaves the value on the server.
func (s *Store) Exists(ctx context.Context, key string, options ...kv.ReadOption) (bool, error) {
	r, err := s.read(ctx, key, options, false)
	if err != nil {
		return false, err
	}
	return r.live(s.clock.Now().Wall), nil
}

// read returns the row of key, nil if there is none.
func (s *Store) read(ctx context.Context, key string, options []kv.ReadOption, whole bool) (*row, error) {
	settings, err := kv.GetSettings(key, options)
	if err != nil {
		return nil, err
	}
	var e *expression
	if whole = whole && !settings.WithoutValues; !whole {
		e = newExpression()
	}
	it, err := s.getItem(ctx, s.begin(key, false, settings.AttemptTimeout, answerSize), settings.Eventual, e)
	if err != nil {
		return nil, err
	}
	r, err := s.decode(key, it, whole)
	if err != nil {
		return nil, err
	}
	s.observeVersion(r.versionOf(), s.clock.Now().Wall)
	return r, nil
}

// getItem reads an item, nil if there is none: without value and fields if e is not nil.
func (s *Store) getItem(ctx context.Context, op *operation, eventual bool, e *expression) (item, error) {
	in := &dynamodb.GetItemInput{
		TableName:      aws.String(s.table),
		Key:            s.keyOf(op.key),
		ConsistentRead: aws.Bool(!eventual),
	}
	if e != nil {
		in.ProjectionExpression = aws.String(s.project(e))
		in.ExpressionAttributeNames = e.names
	}
	var it item
	err := op.run(ctx, func(ctx context.Context, options ...func(*dynamodb.Options)) error {
		out, err := s.client.GetItem(ctx, in, options...)
		if err == nil {
			it = out.Item
		}
		return err
	})
	if len(it) == 0 {
		it = nil
	}
	return it, err
}

// project names the attributes that a read without values needs, and more.
func (s *Store) project(e *expression, more ...string) string {
	var names []string
	for _, name := range append([]string{s.idName, s.nameName, attrVersion, attrDeadline, attrDeleted}, more...) {
		if p := e.attr(name); !slices.Contains(names, p) {
			names = append(names, p)
		}
	}
	return strings.Join(names, ", ")
}
