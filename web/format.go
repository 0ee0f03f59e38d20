package web

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// duration is d for people, in one or two units.
func duration(d time.Duration) string {
	days, hours, minutes := int(d/(24*time.Hour)), int(d/time.Hour)%24, int(d/time.Minute)%60
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", max(d, 0).Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", minutes)
	case d < 24*time.Hour && minutes == 0:
		return fmt.Sprintf("%d h", hours)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case hours == 0:
		return fmt.Sprintf("%d d", days)
	}
	return fmt.Sprintf("%d d %d h", days, hours)
}

// instant is t for people, in UTC, "" if it is not known.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// count is n with its thousands apart.
func count(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// size is n bytes for people.
func size(n int) string {
	if n < 10_000 {
		return count(n) + " B"
	}
	return count(n>>10) + " KiB"
}

// maxText bounds how much of a value is shown, in bytes.
const maxText = 4 << 10

// printable shows a value: as text, or in hex if it is none.
func printable(value []byte) string {
	cut := ""
	if len(value) > maxText {
		value, cut = value[:maxText], "\n…"
		for i := 0; i < utf8.UTFMax && !utf8.Valid(value); i++ {
			value = value[:len(value)-1] // a rune that was cut
		}
	}
	text := string(value)
	isText := utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return !unicode.IsPrint(r) && !unicode.IsSpace(r)
	})
	if !isText {
		text = hex.Dump(value)
	}
	return text + cut
}
