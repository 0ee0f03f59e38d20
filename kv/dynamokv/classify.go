package dynamokv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// verdict is what an attempt's error says about the request.
type verdict int

const (
	applied    verdict = iota
	conflict           // its condition failed
	throttled          // not applied, refused for load
	notApplied         // not applied; another attempt may be
	refused            // not applied, and another attempt cannot be
	clockWrong         // not applied: the signature's time is out of bounds
	unknown            // may have been applied, or may yet be
)

// classify judges an attempt. Whatever it does not know for sure is unknown.
func classify(err error, sent bool) verdict {
	var failed *types.ConditionalCheckFailedException
	var api smithy.APIError
	switch {
	case err == nil:
		return applied
	case errors.As(err, &failed):
		return conflict
	case !sent:
		return classifyUnsent(err)
	case isDialError(err):
		return notApplied
	case errors.As(err, &api) && api.ErrorCode() != "UnknownError":
		return classifyAPI(api.ErrorCode(), api.ErrorMessage(), statusOf(err))
	default:
		return unknown
	}
}

// classifyUnsent tells a slow start (credentials being fetched) from one that fails every time.
func classifyUnsent(err error) verdict {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, errTooLate) || isDialError(err) {
		return notApplied
	}
	return refused
}

// isDialError reports that no connection was made, so that nothing can have been sent on it.
func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// classifyAPI judges an error that DynamoDB answered with.
func classifyAPI(code, message string, status int) verdict {
	switch code {
	case "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "Throttling", "ThrottledException", "TooManyRequestsException":
		return throttled
	case "TransactionConflictException", "ReplicatedWriteConflictException":
		return notApplied
	case "RequestTimeTooSkewed", "RequestExpired":
		return clockWrong
	case "InvalidSignatureException", "SignatureDoesNotMatch":
		if m := strings.ToLower(message); strings.Contains(m, "expired") || strings.Contains(m, "not yet current") {
			return clockWrong
		}
		return refused
	case "RequestTimeout", "RequestTimeoutException", "RequestCanceled":
		return unknown
	}
	switch {
	case status == 429:
		return throttled
	case status >= 400 && status < 500 && status != 408:
		return refused
	default:
		return unknown
	}
}

func statusOf(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// friendly says of an error that is of no use to retry what to do about it.
func (s *Store) friendly(what string, err error) error {
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return &tableNotFoundError{table: s.table, err: err}
	}
	return fmt.Errorf("dynamokv: table %q, %s: %w", s.table, what, err)
}

// tableNotFoundError matches ErrTableNotFound.
type tableNotFoundError struct {
	table string
	err   error
}

func (e *tableNotFoundError) Error() string {
	return fmt.Sprintf("dynamokv: table %q does not exist: create it with EnsureTable", e.table)
}

func (e *tableNotFoundError) Unwrap() []error { return []error{ErrTableNotFound, e.err} }
