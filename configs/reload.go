package configs

import "reflect"

// Reloaded returns the configuration that is in force after a reload: cfg with the values
// of loaded for all keys that take effect at run time. changed lists those of them whose
// value differs, and restart the other keys whose value does, in the order of the example file.
func (cfg Config) Reloaded(loaded Config) (next Config, changed, restart []string) {
	next = cfg
	for _, k := range schema() {
		v := k.get(&loaded)
		switch {
		case reflect.DeepEqual(k.get(&cfg), v):
		case k.live:
			k.set(&next, v)
			changed = append(changed, k.path)
		default:
			restart = append(restart, k.path)
		}
	}
	return next, changed, restart
}

// LiveKeys returns the keys that take effect by a reload, in the order of the example file.
func LiveKeys() []string {
	var live []string
	for _, k := range schema() {
		if k.live {
			live = append(live, k.path)
		}
	}
	return live
}
