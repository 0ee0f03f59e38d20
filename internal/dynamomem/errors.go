package dynamomem

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// invalid makes a ValidationException.
func invalid(format string, args ...any) error {
	return &smithy.GenericAPIError{Code: "ValidationException", Message: fmt.Sprintf(format, args...),
		Fault: smithy.FaultClient}
}

// Answer wraps an error as the SDK does one that the server answered with this status.
func Answer(operation string, status int, err error) error {
	return &smithy.OperationError{ServiceID: "DynamoDB", OperationName: operation, Err: &awshttp.ResponseError{
		ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err,
		},
	}}
}

// onlyFields refuses an input that sets a field this package does not look at.
func onlyFields(in any, known ...string) error {
	v := reflect.ValueOf(in).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; !v.Field(i).IsZero() && !slices.Contains(known, name) {
			return invalid("dynamomem does not know the parameter %s", name)
		}
	}
	return nil
}
