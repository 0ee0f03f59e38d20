// Package boundprocess starts the servers that tests need, so that they end with the test process.
package boundprocess
