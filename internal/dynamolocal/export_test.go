package dynamolocal

import (
	"context"
	"net/http"
)

// ErrPortTaken is what LaunchOn fails with where another process has the port.
var ErrPortTaken = errPortTaken

// LaunchOn starts an emulator on this port.
func LaunchOn(ctx context.Context, java string, port int) (stop func(), err error) {
	dir, err := fetch(ctx)
	if err != nil {
		return nil, err
	}
	_, stop, err = launch(ctx, java, dir, port)
	return stop, err
}

// Post sends a request as those are sent that warm an emulator up.
func Post(ctx context.Context, endpoint, operation, body string) (*http.Response, error) {
	return (&emulator{endpoint: endpoint}).post(ctx, operation, body)
}
