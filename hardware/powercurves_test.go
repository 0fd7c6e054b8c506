package hardware

import (
	"math"
	"testing"
)

// powerCurve is the measured power of the processors of a real machine.
type powerCurve struct {
	name string
	// source is where the figures were published.
	source string
	// watts at equal steps of utilization, from 0 to 1.
	watts []float64
}

// power returns the power in W at a utilization of 0 to 1, interpolated linearly.
func (p powerCurve) power(utilization float64) float64 {
	at := min(1, max(0, utilization)) * float64(len(p.watts)-1)
	below := min(int(at), len(p.watts)-2)
	fraction := at - float64(below)
	return p.watts[below]*(1-fraction) + p.watts[below+1]*fraction
}

// idle returns the idle power in W.
func (p powerCurve) idle() float64 { return p.watts[0] }

// full returns the power at full utilization in W.
func (p powerCurve) full() float64 { return p.watts[len(p.watts)-1] }

const (
	specPower = "SPECpower_ssj2008, spec.org/power_ssj2008/results"
	boavizta  = "Boavizta, consumption profiles of processor packages (a·ln(b·(u+c))+d, u in %)"
)

// publishedCurves returns published measurements. Those of SPECpower are of whole machines at eleven
// loads, those of Boavizta of packages by RAPL; Teads' curve is the mean of several machines.
func publishedCurves() []powerCurve {
	return []powerCurve{
		{"ProLiant ML110 G3", specPower, []float64{105, 112, 118, 125, 131, 137, 147, 153, 157, 164, 169}},
		{"ProLiant ML110 G4", specPower, []float64{86, 89.4, 92.6, 96, 99.5, 102, 106, 108, 112, 114, 117}},
		{"ProLiant ML110 G5", specPower, []float64{93.7, 97, 101, 105, 110, 116, 121, 125, 129, 133, 135}},
		{"x3250, Xeon X3470", specPower, []float64{41.6, 46.7, 52.3, 57.9, 65.4, 73, 80.7, 89.5, 99.6, 105, 113}},
		{"x3250, Xeon X3480", specPower, []float64{42.3, 46.7, 49.7, 55.4, 61.8, 69.3, 76.1, 87, 96.1, 106, 113}},
		{"x3650 M2, Xeon X5570", specPower, []float64{81.4, 110, 125, 139, 153, 167, 182, 199, 214, 229, 244}},
		{"x3550 M3, Xeon X5670", specPower, []float64{66, 107, 120, 131, 143, 156, 173, 191, 211, 229, 247}},
		{"x3550 M3, Xeon X5675", specPower, []float64{58.4, 98, 109, 118, 128, 140, 153, 170, 189, 205, 222}},
		{"SuperServer 6025B-TR+", specPower, []float64{216, 221, 227, 235, 245, 258, 270, 282, 294, 307, 315}},
		{"PRIMERGY RX300 S4", specPower, []float64{166, 179, 191, 200, 212, 224, 235, 245, 252, 259, 265}},
		{"PowerEdge R640", specPower, []float64{55, 125, 151, 176, 202, 232, 261, 301, 357, 421, 469}},
		{"PowerEdge R740", specPower, []float64{52.3, 129, 147, 170, 195, 224, 255, 292, 344, 408, 457}},
		{"PowerEdge R940", specPower, []float64{106, 245, 292, 336, 383, 437, 502, 583, 694, 820, 915}},
		profile("Xeon Platinum", 171.1813, 0.0354, 36.8953, -10.1336),
		profile("Xeon Gold", 35.5688, 0.2438, 9.6694, -0.6087),
		profile("Xeon Silver", 20.7794, 0.3043, 8.4241, 0.8613),
		profile("Xeon E5", 48.9167, 0.1349, 15.7262, -4.654),
		profile("Xeon E3", 342.3624, 0.0347, 36.8952, -16.4022),
		profile("Xeon E", 55.6501, 0.0467, 20.4146, 4.2436),
		{"mean of Teads", "Teads Engineering, Estimating AWS EC2 Instances Power Consumption (2021), of 100 W TDP",
			[]float64{12, 32, 42.75, 53.5, 64.25, 75, 80.4, 85.8, 91.2, 96.6, 102}},
	}
}

func profile(name string, a, b, c, d float64) powerCurve {
	p := powerCurve{name: name, source: boavizta}
	for percent := 0.0; percent <= 100; percent += 5 {
		p.watts = append(p.watts, a*math.Log(b*(percent+c))+d)
	}
	return p
}

func TestPublishedCurves(t *testing.T) {
	for _, p := range publishedCurves() {
		last := p.power(-1)
		if last != p.idle() || p.power(2) != p.full() || p.source == "" {
			t.Errorf("%s: got %v W idle and %v W at full utilization from source %q", p.name, last, p.power(2), p.source)
		}
		for u := 0.0; u <= 1; u += 0.01 {
			power := p.power(u)
			if power < last || power > p.full() {
				t.Errorf("%s: got %v W at utilization %v, want %v to %v W", p.name, power, u, last, p.full())
			}
			last = max(last, power)
		}
	}
	if got := (powerCurve{watts: []float64{10, 20, 40}}).power(0.75); got != 30 {
		t.Errorf("got %v W, want 30 W", got)
	}
}
