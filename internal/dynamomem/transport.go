package dynamomem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// target begins the header that names an operation.
const target = "DynamoDB_20120810."

// Transport returns the http.RoundTripper under a *dynamodb.Client, which
// reaches s whatever its endpoint: for tests that tamper with requests and
// answers as they are on the wire. It does not look at signatures.
func (s *Server) Transport() http.RoundTripper { return transport{s} }

type transport struct{ server *Server }

// RoundTrip serves one request at once.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	defer func() { _ = r.Body.Close() }() // it is in memory
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	status, answer := http.StatusOK, any(nil)
	if answer, err = t.serve(strings.TrimPrefix(r.Header.Get("X-Amz-Target"), target), body); err != nil {
		status, answer = http.StatusBadRequest, encodeError(err)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("dynamomem: %w", err)
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)),
	}, nil
}

// serve returns the body of the answer, to be written as JSON.
func (t transport) serve(operation string, body []byte) (any, error) {
	s := t.server
	switch operation {
	case "GetItem":
		out, err := serve(s, body, s.getItem)
		if err != nil || out.Item == nil {
			return object{}, err
		}
		return object{"Item": encodeItem(out.Item)}, nil
	case "PutItem":
		_, err := serve(s, body, s.putItem)
		return object{}, err
	case "UpdateItem":
		_, err := serve(s, body, s.updateItem)
		return object{}, err
	case "DeleteItem":
		_, err := serve(s, body, s.deleteItem)
		return object{}, err
	case "TransactWriteItems":
		_, err := serve(s, body, s.transactWriteItems)
		return object{}, err
	case "Query":
		out, err := serve(s, body, s.query)
		if err != nil {
			return nil, err
		}
		return encodePage(out), nil
	}
	return nil, &smithy.GenericAPIError{Code: "UnknownOperationException", Message: operation}
}

func serve[In, Out any](s *Server, body []byte, do func(*In) (*Out, error)) (*Out, error) {
	in := new(In)
	if err := decode(body, in); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := do(in)
	if err != nil {
		return nil, modeled(err)
	}
	return out, nil
}

// object is a JSON object.
type object = map[string]any

// decode reads an input. The JSON has the names of the SDK's fields; only those
// that hold values of attributes, which are interfaces in the SDK, must be read
// by hand.
func decode(body []byte, in any) error {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(body, &parts); err != nil {
		return &smithy.GenericAPIError{Code: "SerializationException", Message: err.Error()}
	}
	for name, part := range parts {
		field := reflect.ValueOf(in).Elem().FieldByName(name)
		var err error
		switch {
		case !field.IsValid():
			err = fmt.Errorf("no parameter %q", name)
		case field.Type() == reflect.TypeFor[item]():
			var it item
			it, err = decodeItem(part)
			field.Set(reflect.ValueOf(it))
		case field.Type() == reflect.TypeFor[[]types.TransactWriteItem]():
			var items []types.TransactWriteItem
			items, err = decodeTransaction(part)
			field.Set(reflect.ValueOf(items))
		default:
			err = json.Unmarshal(part, field.Addr().Interface())
		}
		if err != nil {
			return &smithy.GenericAPIError{Code: "SerializationException", Message: err.Error()}
		}
	}
	return nil
}

func decodeTransaction(text json.RawMessage) ([]types.TransactWriteItem, error) {
	var elements []map[string]json.RawMessage
	if err := json.Unmarshal(text, &elements); err != nil {
		return nil, err
	}
	items := make([]types.TransactWriteItem, len(elements))
	for i, element := range elements {
		for kind, part := range element {
			field := reflect.ValueOf(&items[i]).Elem().FieldByName(kind)
			if !field.IsValid() {
				return nil, fmt.Errorf("no write %q", kind)
			}
			field.Set(reflect.New(field.Type().Elem()))
			if err := decode(part, field.Interface()); err != nil {
				return nil, err
			}
		}
	}
	return items, nil
}

func decodeItem(text json.RawMessage) (item, error) {
	var values map[string]struct {
		S, N *string
		B    *[]byte
		BOOL *bool
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&values); err != nil || values == nil {
		return nil, err
	}
	it := make(item, len(values))
	for name, v := range values {
		switch {
		case v.S != nil:
			it[name] = &types.AttributeValueMemberS{Value: *v.S}
		case v.N != nil:
			it[name] = &types.AttributeValueMemberN{Value: *v.N}
		case v.B != nil:
			it[name] = &types.AttributeValueMemberB{Value: *v.B}
		case v.BOOL != nil:
			it[name] = &types.AttributeValueMemberBOOL{Value: *v.BOOL}
		default:
			return nil, fmt.Errorf("%q has no value", name)
		}
	}
	return it, nil
}

// encodeItem is the inverse.
func encodeItem(it item) object {
	out := make(object, len(it))
	for name, v := range it {
		switch v := v.(type) {
		case *types.AttributeValueMemberS:
			out[name] = object{"S": v.Value}
		case *types.AttributeValueMemberN:
			out[name] = object{"N": v.Value}
		case *types.AttributeValueMemberB:
			out[name] = object{"B": v.Value}
		case *types.AttributeValueMemberBOOL:
			out[name] = object{"BOOL": v.Value}
		}
	}
	return out
}

func encodePage(out *dynamodb.QueryOutput) object {
	items := make([]object, 0, len(out.Items))
	for _, it := range out.Items {
		items = append(items, encodeItem(it))
	}
	page := object{"Items": items, "Count": out.Count, "ScannedCount": out.ScannedCount}
	if out.LastEvaluatedKey != nil {
		page["LastEvaluatedKey"] = encodeItem(out.LastEvaluatedKey)
	}
	return page
}

func encodeError(err error) object {
	var api smithy.APIError
	if !errors.As(err, &api) {
		panic(err) // modeled let through what is not an error of the API
	}
	answer := object{"__type": "com.amazonaws.dynamodb.v20120810#" + api.ErrorCode(), "message": api.ErrorMessage()}
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) && failed.Item != nil {
		answer["Item"] = encodeItem(failed.Item)
	}
	var onDemand *types.ThrottlingException
	if errors.As(err, &onDemand) {
		answer["throttlingReasons"] = encodeThrottling(onDemand.ThrottlingReasons)
	}
	var provisioned *types.ProvisionedThroughputExceededException
	if errors.As(err, &provisioned) {
		answer["ThrottlingReasons"] = encodeThrottling(provisioned.ThrottlingReasons)
	}
	var canceled *types.TransactionCanceledException
	if errors.As(err, &canceled) {
		answer["Message"] = api.ErrorMessage()
		answer["CancellationReasons"] = encodeReasons(canceled.CancellationReasons)
	}
	return answer
}

func encodeThrottling(reasons []types.ThrottlingReason) []object {
	var out []object
	for _, r := range reasons {
		out = append(out, object{"reason": *r.Reason, "resource": *r.Resource})
	}
	return out
}

func encodeReasons(reasons []types.CancellationReason) []object {
	out := make([]object, 0, len(reasons))
	for _, r := range reasons {
		o := object{"Code": *r.Code}
		if r.Message != nil {
			o["Message"] = *r.Message
		}
		if r.Item != nil {
			o["Item"] = encodeItem(r.Item)
		}
		out = append(out, o)
	}
	return out
}
