package dynamokv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// Policy returns, as JSON, the IAM policy of a program that uses a Store of these options in
// the table of this ARN. It allows what the Store sends and what its ConditionCheck needs, on
// the Store's values of the partition key, and nothing else. To list by an index takes
// dynamodb:Query on the index too. It sends nothing.
func Policy(tableARN string, options ...Option) (string, error) {
	table, err := tableOf(tableARN)
	if err != nil {
		return "", err
	}
	c, err := newConfig(table, options)
	if err != nil {
		return "", err
	}
	actions := []string{
		"dynamodb:ConditionCheckItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem",
	}
	if c.retention == 0 {
		actions = append(actions, "dynamodb:DeleteItem")
	}
	ids := []string{c.partition} // that of the layout, whatever the shards
	for i := range c.shards {
		if id := c.shard(i); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return policy(statement{
		ID: "UsePartition", Effect: "Allow", Actions: actions, Resource: tableARN,
		Condition: map[string]any{"ForAllValues:StringEquals": map[string]any{"dynamodb:LeadingKeys": ids}},
	})
}

// TablePolicy returns, as JSON, the IAM policy of a program that calls EnsureTable for the
// table of this ARN. CheckTable needs the two actions of it that describe. It sends nothing.
func TablePolicy(tableARN string) (string, error) {
	if _, err := tableOf(tableARN); err != nil {
		return "", err
	}
	return policy(statement{
		ID: "EnsureTable", Effect: "Allow", Resource: tableARN,
		Actions: []string{
			"dynamodb:CreateTable", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive", "dynamodb:UpdateTimeToLive",
		},
	})
}

// statement is one of a policy.
type statement struct {
	ID        string         `json:"Sid"`
	Effect    string         `json:"Effect"`
	Actions   []string       `json:"Action"`
	Resource  string         `json:"Resource"`
	Condition map[string]any `json:"Condition,omitempty"`
}

func policy(s statement) (string, error) {
	text, err := json.MarshalIndent(map[string]any{"Version": "2012-10-17", "Statement": []statement{s}}, "", "  ")
	return string(text), err
}

// tableOf is the name of the table that an ARN names.
func tableOf(arn string) (string, error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) == 6 && parts[0] == "arn" && parts[2] == "dynamodb" {
		if name, ok := strings.CutPrefix(parts[5], "table/"); ok && name != "" && !strings.Contains(name, "/") {
			return name, nil
		}
	}
	return "", fmt.Errorf("dynamokv: ARN %.100q: want arn:aws:dynamodb:REGION:ACCOUNT:table/NAME: %w", arn,
		kv.ErrInvalidOption)
}

// transacting is what Denied asks a Client for besides. *dynamodb.Client has it.
type transacting interface {
	TransactWriteItems(context.Context, *dynamodb.TransactWriteItemsInput,
		...func(*dynamodb.Options)) (*dynamodb.TransactWriteItemsOutput, error)
}

// Denied returns those of Policy's actions that DynamoDB refuses the Store's credentials. It
// changes nothing: it reads and lists a key that is not there, and sends writes that depend on
// it. Any other refusal, such as that of a missing table, is an error. It costs a request per
// action. DeleteItem is left out, and so is ConditionCheckItem where the Client has no
// TransactWriteItems.
func (s *Store) Denied(ctx context.Context) ([]string, error) {
	var denied []string
	for _, p := range s.probes(newWriteID()) {
		op := s.begin("", false, 0, 0)
		op.layout = true // the shards do not matter
		err := op.run(ctx, p.send)
		var failed *types.ConditionalCheckFailedException
		var canceled *types.TransactionCanceledException
		switch {
		case err == nil, errors.As(err, &failed), errors.As(err, &canceled):
		case codeOf(err) == "AccessDeniedException":
			denied = append(denied, "dynamodb:"+p.action)
		default:
			return denied, err
		}
	}
	return denied, nil
}

// probe is a request that shows whether an action is allowed.
type probe struct {
	action string
	send   sender
}

// probes are those that change nothing if key is not there.
func (s *Store) probes(key string) []probe {
	e := newExpression()
	condition := aws.String(fmt.Sprintf("attribute_exists(%s)", e.attr(s.idName)))
	table, id, names := aws.String(s.table), s.keyOf(key), e.names
	update := newExpression()
	change := aws.String("REMOVE " + update.attr(attrDeleted))
	exists := aws.String(fmt.Sprintf("attribute_exists(%s)", update.attr(s.idName)))
	return []probe{
		{"ConditionCheckItem", func(ctx context.Context, options ...func(*dynamodb.Options)) error {
			client, ok := s.client.(transacting)
			if !ok {
				return nil
			}
			_, err := client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{
				TransactItems: []types.TransactWriteItem{{ConditionCheck: &types.ConditionCheck{
					TableName: table, Key: id, ConditionExpression: condition, ExpressionAttributeNames: names,
				}}},
			}, options...)
			return err
		}},
		{"GetItem", func(ctx context.Context, options ...func(*dynamodb.Options)) error {
			_, err := s.client.GetItem(ctx, &dynamodb.GetItemInput{TableName: table, Key: id}, options...)
			return err
		}},
		{"PutItem", func(ctx context.Context, options ...func(*dynamodb.Options)) error {
			_, err := s.client.PutItem(ctx, &dynamodb.PutItemInput{
				TableName: table, Item: id, ConditionExpression: condition, ExpressionAttributeNames: names,
			}, options...)
			return err
		}},
		{"Query", func(ctx context.Context, options ...func(*dynamodb.Options)) error {
			l := &listing{store: s, shard: s.shard(s.shardOf(key)), prefix: key}
			_, err := s.client.Query(ctx, l.query(s.begin(key, false, 0, 0), 1), options...)
			return err
		}},
		{"UpdateItem", func(ctx context.Context, options ...func(*dynamodb.Options)) error {
			_, err := s.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
				TableName: table, Key: id, UpdateExpression: change, ConditionExpression: exists,
				ExpressionAttributeNames: update.names,
			}, options...)
			return err
		}},
	}
}
