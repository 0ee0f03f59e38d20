package dynamokv_test

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/dynalock/dynalock/internal/dynamolocal"
)

// credentials are the emulator's.
type credentials struct{}

func (credentials) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: dynamolocal.AccessKey, SecretAccessKey: dynamolocal.SecretKey}, nil
}
