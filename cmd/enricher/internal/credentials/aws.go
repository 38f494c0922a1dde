package credentials

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
)

// iam is the mechanism AWS_MSK_IAM. Every login signs with the credentials that
// are valid then.
func iam(r *renewed[aws.Auth]) sasl.Mechanism {
	return mechanism{Mechanism: aws.ManagedStreamingIAM(r.get), flag: "sasl-mechanism"}
}

// awsCredentials returns credentials of the AWS SDK's chain: environment, shared
// files, web identity, container and instance. It is set up for every request,
// because the SDK reads its files only then.
func awsCredentials(ctx context.Context) (aws.Auth, time.Time, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return aws.Auth{}, time.Time{}, &Error{Flag: "sasl-mechanism", Text: "the AWS configuration cannot be read: " + clean(err.Error())}
	}
	got, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Auth{}, time.Time{}, &Error{Flag: "sasl-mechanism", Text: "no AWS credentials: " + clean(err.Error())}
	}
	var expires time.Time
	if got.CanExpire {
		expires = got.Expires
	}
	return aws.Auth{AccessKey: got.AccessKeyID, SecretKey: got.SecretAccessKey, SessionToken: got.SessionToken, UserAgent: "enricher"}, expires, nil
}
