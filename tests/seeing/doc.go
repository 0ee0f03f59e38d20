// Package seeing tests that people see a process which has stopped, before others
// take what it holds.
package seeing
