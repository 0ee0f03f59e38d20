package logs_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/logs"
)

func TestSparingTellsEachCauseOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := logs.Sparing(slog.New(slog.NewTextHandler(&out, nil)))
		for range 600 { // ten minutes
			log.Warn("fails", "key", "a", "error", "refused after "+time.Since(time.Time{}).String())
			log.Warn("fails", "key", "b")
			log.With("pool", "p").Warn("fails", "key", "a")
			log.Info("goes on")
			time.Sleep(time.Second)
		}
		count := func(text string) int { return strings.Count(out.String(), text) }
		require.Equal(t, 30, count("level=WARN msg=fails"))
		require.Equal(t, 10, count("pool=p key=a"))
		require.Equal(t, 27, count("left_out=59"))
		require.Equal(t, 600, count("goes on"), "what is no warning is not spared")
	})
}

func TestSparingTellsAnotherErrorAtOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := logs.Sparing(slog.New(slog.NewTextHandler(&out, nil)))
	for _, err := range []string{"broken pipe", "no such host", "broken pipe"} {
		log.Warn("fails", "error", err)
	}
	require.Equal(t, 2, strings.Count(out.String(), "fails"))
}

func TestSparingForgetsCauses(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := logs.Sparing(slog.New(slog.NewTextHandler(&out, nil)))
	for i := range 5000 {
		log.Warn("fails", "key", i)
	}
	require.Equal(t, 5000, strings.Count(out.String(), "fails"))
}

// Not parallel: slog.Default is the process's.
func TestDefaultTellsWarningsToTheProcessesLogger(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	defer slog.SetDefault(before)
	log := logs.Default().With("a", 1).WithGroup("g")
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.Info("quiet")
	log.Warn("told", "b", 2)
	require.Contains(t, out.String(), "level=WARN msg=told a=1 g.b=2")
	require.NotContains(t, out.String(), "quiet")
	out.Reset()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	log.Error("nowhere")
	require.Empty(t, out.String())
}
