package dynamolocal_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamolocal"
)

func TestMain(m *testing.M) { dynamolocal.Main(m) }

func TestEndpointAnswersAndIsShared(t *testing.T) {
	t.Parallel()
	endpoint := dynamolocal.Endpoint(t)
	response, err := http.Get(endpoint)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, endpoint, dynamolocal.Endpoint(t))
}

// The first requests of an emulator load most of it, and are slow.
func TestAnEmulatorHasServedRequestsBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	if os.Getenv(dynamolocal.EndpointVariable) != "" {
		t.Skip("the emulator is not one that was started here")
	}
	response, err := dynamolocal.Post(t.Context(), dynamolocal.Endpoint(t), "ListTables", "{}")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.JSONEq(t, `{"TableNames":["warm"]}`, string(body))
}

// An emulator whose port another one has goes on without it, and the other one
// answers in its place until its own tests end.
func TestAnotherEmulatorOnThePortIsNotTakenForOurs(t *testing.T) {
	t.Parallel()
	other, err := url.Parse(dynamolocal.Endpoint(t))
	require.NoError(t, err)
	port, err := strconv.Atoi(other.Port())
	require.NoError(t, err)
	_, err = dynamolocal.LaunchOn(t.Context(), "java", port)
	require.ErrorIs(t, err, dynamolocal.ErrPortTaken)
}

// fakeJava is a program of the shell in place of java.
func fakeJava(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "java")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700)) //nolint:gosec // it is to be run
	return path
}

func TestAnEmulatorThatExitsSaysWhy(t *testing.T) {
	t.Parallel()
	dynamolocal.Endpoint(t) // is there, or this test is left out
	_, err := dynamolocal.LaunchOn(t.Context(), fakeJava(t, "echo no room for the heap; echo at all >&2; exit 1"), 1)
	require.ErrorContains(t, err, "exited at once")
	require.ErrorContains(t, err, "no room for the heap\nat all\n")
}

func TestAnEmulatorThatDoesNotAnswerSaysWhatItPrinted(t *testing.T) {
	t.Parallel()
	dynamolocal.Endpoint(t)
	ctx, cancel := context.WithCancel(t.Context())
	printed := filepath.Join(t.TempDir(), "printed")
	go func() {
		defer cancel()
		for clock.Sleep(t.Context(), clock.System, 10*time.Millisecond) == nil {
			if _, err := os.Stat(printed); err == nil {
				return
			}
		}
	}()
	_, err := dynamolocal.LaunchOn(ctx, fakeJava(t, "echo waiting for Godot; : > "+printed+"; exec sleep 600"), 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "does not answer")
	require.ErrorContains(t, err, "waiting for Godot")
}
