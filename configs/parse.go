package configs

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Labels are the node's labels: values by name.
type Labels map[string]string

// parse converts a raw setting to a value of type t. raw is a string, or a []string
// if the file has a list or a mapping. As a string, a list is separated by commas and
// a label is name=value.
func parse(t reflect.Type, raw any) (any, error) {
	text, _ := raw.(string)
	switch t {
	case reflect.TypeFor[string]():
		return text, nil
	case reflect.TypeFor[Secret]():
		return NewSecret(text), nil
	case reflect.TypeFor[bool]():
		return parseBool(text)
	case reflect.TypeFor[int]():
		return parseInt(text)
	case reflect.TypeFor[float64]():
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, errors.New("not a number")
		}
		return n, nil
	case reflect.TypeFor[time.Duration]():
		return parseDuration(text)
	case reflect.TypeFor[LimitDuration]():
		return parseLimitDuration(text)
	case reflect.TypeFor[LimitCount]():
		return parseLimitCount(text)
	case reflect.TypeFor[Size]():
		return ParseSize(text)
	case reflect.TypeFor[[]string]():
		return parseList(raw)
	case reflect.TypeFor[Labels]():
		return parseLabels(raw)
	}
	return nil, fmt.Errorf("no parser for a %s", t)
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, errors.New("neither true nor false")
}

func parseInt(text string) (int, error) {
	n, err := strconv.Atoi(text)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, errOutOfRange
	case err != nil:
		return 0, errors.New("not a whole number")
	}
	return n, nil
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, errors.New("a number without a unit")
	}
	return 0, errors.New("not a duration")
}

func parseList(raw any) ([]string, error) {
	list, ok := raw.([]string)
	if text, _ := raw.(string); !ok && text != "" {
		list = strings.Split(text, ",")
	}
	items := make([]string, 0, len(list))
	for _, item := range list {
		if item = strings.TrimSpace(item); item == "" {
			return nil, errors.New("has an empty element")
		}
		items = append(items, item)
	}
	return items, nil
}

func parseLabels(raw any) (Labels, error) {
	items, err := parseList(raw)
	if err != nil {
		return nil, err
	}
	labels := Labels{}
	for _, item := range items {
		name, value, ok := strings.Cut(item, "=")
		if _, twice := labels[name]; twice {
			return nil, fmt.Errorf("duplicate name %q", shorten(name))
		}
		if !ok {
			return nil, fmt.Errorf("%q has no value", shorten(item))
		}
		labels[name] = value
	}
	return labels, nil
}

// format is the inverse of parse, except that it hides secrets.
func format(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return formatDuration(v)
	case []string:
		return strings.Join(v, ",")
	case Labels:
		items := make([]string, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			items = append(items, name+"="+v[name])
		}
		return strings.Join(items, ",")
	}
	return fmt.Sprint(v)
}

// formatDuration omits trailing zero units: 1h instead of 1h0m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
