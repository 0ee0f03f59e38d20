// Package alerts holds infra's alerts and dashboard to what is exported: its
// tests bring each condition about and evaluate the expressions.
package alerts
