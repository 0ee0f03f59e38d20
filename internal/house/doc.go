// Package house has no code: its tests keep the rules of the repository that
// neither the compiler nor a linter keeps.
package house
