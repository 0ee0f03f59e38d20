package dynamokv

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/dynalock/dynalock/kv"
)

// verdict is what an attempt's error says about the request.
type verdict int

const (
	applied    verdict = iota
	conflict           // its condition failed
	throttled          // not applied, refused for load
	notApplied         // not applied; another attempt may be
	refused            // not applied, and will not be until somebody mends something
	misused            // not applied, and nothing mends it
	clockWrong         // not applied: the signature's time is out of bounds
	foreign            // may have been applied; what answered is no DynamoDB
	unknown            // may have been applied, or may yet be
)

// reach is how far an attempt's request got.
type reach int

const (
	unsent    reach = iota // it was not handed to the HTTP client
	unwritten              // it was, and surely not a byte of it was written
	written                // it was, and may have been written
)

// classify judges an attempt. Whatever it does not know for sure is unknown.
// met: DynamoDB has answered this Store before.
func classify(err error, r reach, met bool) verdict {
	var failed *types.ConditionalCheckFailedException
	switch {
	case err == nil:
		return applied
	case errors.As(err, &failed):
		return conflict
	case r == unsent:
		return classifyUnsent(err)
	case r == unwritten, isDialError(err):
		if !met && isMisdirected(err) {
			return refused
		}
		return notApplied
	case codeOf(err) != "":
		return classifyAPI(err)
	}
	switch status := statusOf(err); {
	case status == http.StatusForbidden, status == http.StatusProxyAuthRequired:
		return refused // a proxy's: it has not let the request through
	case !met && status != 0 && status < 500 && !isDynamoDB(err):
		return foreign
	}
	return unknown
}

// classifyUnsent tells a slow start (credentials being fetched) from one that fails every time.
func classifyUnsent(err error) verdict {
	if isEnded(err) || errors.Is(err, errTooLate) || isDialError(err) {
		return notApplied
	}
	return refused
}

// isEnded reports that err is a context's end.
func isEnded(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// isDialError reports that no connection was made, so that nothing can have been sent on it.
func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isMisdirected reports that what is at the endpoint does not speak TLS, or
// cannot prove that it is DynamoDB.
func isMisdirected(err error) bool {
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &certificate) || errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch)
}

// codeOf is the code of DynamoDB's answer, "" if it was none.
func codeOf(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() == "UnknownError" {
		return ""
	}
	return api.ErrorCode()
}

// classifyAPI judges an error that DynamoDB answered with.
func classifyAPI(err error) verdict {
	switch codeOf(err) {
	case "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "Throttling",
		"ThrottledException", "TooManyRequestsException":
		return throttled
	case "TransactionConflictException", "ReplicatedWriteConflictException":
		return notApplied
	case "ValidationException", "SerializationException", "ItemCollectionSizeLimitExceededException":
		return misused
	case "RequestTimeTooSkewed", "RequestExpired":
		return clockWrong
	case "InvalidSignatureException", "SignatureDoesNotMatch":
		if m := strings.ToLower(err.Error()); strings.Contains(m, "expired") || strings.Contains(m, "not yet current") {
			return clockWrong
		}
		return refused
	case "RequestTimeout", "RequestTimeoutException", "RequestCanceled":
		return unknown
	}
	switch status := statusOf(err); {
	case status == http.StatusTooManyRequests:
		return throttled
	case status >= 400 && status < 500 && status != http.StatusRequestTimeout:
		return refused
	}
	return unknown
}

// isExpired reports that the credentials were valid once. Others may be there by
// the next attempt.
func isExpired(err error) bool {
	code := codeOf(err)
	return code == "ExpiredTokenException" || code == "ExpiredToken"
}

// isDynamoDB reports that an answer has what all of DynamoDB's have.
func isDynamoDB(err error) bool {
	var response *awshttp.ResponseError
	if !errors.As(err, &response) {
		return false
	}
	header := response.HTTPResponse().Header
	return header.Get("X-Amzn-Requestid") != "" ||
		strings.HasPrefix(header.Get("Content-Type"), "application/x-amz-json")
}

func statusOf(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// friendly says of an error that is of no use to retry what to do about it.
// sentinel is that of package kv.
func (s *Store) friendly(what, region string, sentinel, err error) error {
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return &tableNotFoundError{table: s.table, region: region, err: err}
	}
	return fmt.Errorf("dynamokv: table %q%s, %s: %w: %s%w",
		s.table, in(region), what, sentinel, remedy(err), err)
}

func in(region string) string {
	if region == "" {
		return ""
	}
	return " in " + region
}

// remedy is what a person can do about an error, with a colon, or nothing.
func remedy(err error) string {
	var certificate *tls.CertificateVerificationError
	switch code := codeOf(err); {
	case code == "AccessDeniedException":
		return "these credentials lack a permission (docs/operations.md has the policy): "
	case isExpired(err):
		return "the credentials have expired, renew them: "
	case code == "UnrecognizedClientException", code == "InvalidSignatureException", code == "SignatureDoesNotMatch",
		code == "MissingAuthenticationTokenException", code == "MissingAuthenticationToken":
		return "these credentials are not valid here, check them, the Region and the endpoint: "
	case strings.HasPrefix(code, "KMS"):
		return "the table's KMS key cannot be used: "
	case code != "":
		return ""
	case errors.As(err, &certificate):
		return "the endpoint's certificate is not trusted, check the endpoint, proxies and this machine's certificates: "
	case isMisdirected(err):
		return "the endpoint does not speak TLS, check its port, or begin it with http://: "
	case statusOf(err) == http.StatusForbidden, statusOf(err) == http.StatusProxyAuthRequired:
		return "a proxy refuses the request: "
	case statusOf(err) != 0 && !isDynamoDB(err):
		return "what answers is no DynamoDB, check the endpoint and proxies: "
	}
	return ""
}

// tableNotFoundError matches ErrTableNotFound and kv.ErrRefused.
type tableNotFoundError struct {
	table, region string
	err           error
}

func (e *tableNotFoundError) Error() string {
	return fmt.Sprintf("dynamokv: table %q does not exist%s: create it with EnsureTable, or check Region and account",
		e.table, in(e.region))
}

func (e *tableNotFoundError) Unwrap() []error { return []error{ErrTableNotFound, kv.ErrRefused, e.err} }
