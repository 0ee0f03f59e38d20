package main

import (
	"fmt"
	"slices"
)

// how says how it died.
func (d death) how() string {
	if d.Killed {
		return "killed"
	}
	return "died"
}

// sentence is what came of the run, in words. before is how many entries were
// done when it began.
func (s Summary) sentence(before int) string {
	files, by := count(s.Done, "file"), 0
	for _, n := range s.Workers {
		if n > 0 {
			by++
		}
	}
	switch {
	case s.Duplicates > 0:
		return fmt.Sprintf("%s hashed, and %s: the locks did not exclude.", files, count(s.Duplicates, "duplicate"))
	case !s.Complete:
		return fmt.Sprintf("%d of %d files are hashed.", s.Done, s.Entries)
	case before == s.Entries:
		return fmt.Sprintf("Nothing was left to do: %s had been hashed by %s.", files, count(by, "worker"))
	}
	return fmt.Sprintf("%s hashed exactly once by %s%s.", files, count(by, "worker"), s.casualties())
}

// casualties says who died, and what became of what they had locked.
func (s Summary) casualties() string {
	if len(s.deaths) == 0 {
		return ""
	}
	who, how, whose, were := "one", "was killed", "its", "were"
	if len(s.deaths) > 1 {
		who, how, whose = fmt.Sprint(len(s.deaths)), "were killed", "their"
	}
	if slices.ContainsFunc(s.deaths, func(d death) bool { return !d.Killed }) {
		how = "died"
	}
	if s.takenOver == 1 {
		were = "was"
	}
	return fmt.Sprintf("; %s %s, %d of %s files %s taken over", who, how, s.takenOver, whose, were)
}

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
