package exporters_test

import (
	"fmt"
	"testing"
	"time"

	"ffmpeg-agent/hardware"
	"ffmpeg-agent/hardware/energy"
	"ffmpeg-agent/hardware/fakehw"
)

// From a fake powercap tree through RAPL and ledger to a scrape, with counters that wrap.
func TestScrapeOfRAPLTopologies(t *testing.T) {
	for name, zones := range map[string][]counter{
		"cpu_two_sockets": {
			{"intel-rapl:0", "package-0", 100}, {"intel-rapl:0:0", "core", 60}, {"intel-rapl:0:1", "dram", 10},
			{"intel-rapl:1", "package-1", 80}, {"intel-rapl:1:0", "core", 50}, {"intel-rapl:1:1", "dram", 8},
			{"intel-rapl:2", "psys", 250}, {"intel-rapl-mmio:0", "package-0", 100}, {"intel-rapl-mmio:1", "package-1", 80},
		},
		"cpu_odd_firmware": {
			{"intel-rapl:0", "package-0", 100}, {"intel-rapl:0:0", "dram", 10}, {"intel-rapl:0:1", "dram", 11},
			{"intel-rapl:1", "package-0", 80}, {"intel-rapl:1:0", "dram", 8},
			{"intel-rapl:2", "\xff\"\\", 5}, {"intel-rapl:3", "\xfe\"\\", 6},
		},
	} {
		t.Run(name, func(t *testing.T) {
			scrape := scrapeCPU(t, measured(t, zones))
			golden(t, name, scrape)
			lint(t, scrape)
		})
	}
}

// counter is a RAPL counter that advances at constant power.
type counter struct {
	id, name string
	watts    int64
}

// measured returns a ledger's snapshot after 20 s, in which each counter has wrapped once.
func measured(t *testing.T, counters []counter) *energy.Snapshot {
	t.Helper()
	const maxRange = 65_712_999_613 // µJ
	tree, err := fakehw.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	paths := make([]string, len(counters))
	for i, c := range counters {
		zone, err := tree.AddZone(fakehw.ZoneConfig{ID: c.id, Name: c.name, Range: maxRange})
		if err != nil {
			t.Fatal(err)
		}
		paths[i] = zone.Path()
	}
	rapl, err := hardware.OpenRAPL(tree.Sys())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rapl.Close() })
	ledger, begin := energy.NewLedger(), time.Now()
	for second := range int64(21) {
		for i, c := range counters {
			value := (maxRange - 1_000_000 + c.watts*second*1_000_000) % maxRange
			if err := tree.Write(paths[i], fmt.Sprintf("%d\n", value)); err != nil {
				t.Fatal(err)
			}
		}
		sample := energy.Sample{Sampler: "rapl", At: begin.Add(time.Duration(second) * time.Second)}
		sample.Readings, sample.Faults = rapl.Read()
		for i := range sample.Readings {
			sample.Readings[i].At = sample.At // the counters' simulated clock
		}
		ledger.Record(sample)
	}
	return ledger.Snapshot()
}
