// Package notrun is for tests that need a program which not every machine has.
// Where it is missing they are left out, and make test ends with a line that
// says so and what to install. Where everything must run, they fail.
package notrun

import (
	"fmt"
	"os"
	"testing"
)

const (
	// AllVariable is the environment variable that turns what is left out into
	// a failure: CI sets it to 1.
	AllVariable = "DYNALOCK_TEST_ALL"
	// FileVariable names the file that collects a line for each test that was
	// left out. make test sets it, to another file each time: so go test does
	// not take the result of an earlier run, which left its lines in an earlier
	// file.
	FileVariable = "DYNALOCK_TEST_NOT_RUN"
)

// Skip leaves t out, since a program is missing. what names the suite, remedy
// says how to get the program: "the tests on PostgreSQL", "on Debian: apt-get
// install postgresql".
func Skip(t testing.TB, what, remedy string) {
	t.Helper()
	line := fmt.Sprintf("%s: %s", what, remedy)
	if os.Getenv(AllVariable) == "1" {
		t.Fatalf("NOT RUN: %s (%s=1 asks for all tests)", line, AllVariable)
	}
	if file := os.Getenv(FileVariable); file != "" {
		if err := record(file, line); err != nil {
			t.Fatal(err)
		}
	}
	t.Skip("NOT RUN: " + line)
}

// record adds line to the file in one write, as other processes do.
func record(file, line string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("notrun: %w", err)
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		_ = f.Close()
		return fmt.Errorf("notrun: %w", err)
	}
	return f.Close()
}
