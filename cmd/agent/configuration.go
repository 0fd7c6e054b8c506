package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"ffmpeg-agent/actors"
	"ffmpeg-agent/configs"
	"ffmpeg-agent/exporters"
	"ffmpeg-agent/messages"
)

// effective is a valid configuration with what the files that it names hold.
type effective struct {
	configs.Config
	apiKey configs.Secret
	// keyProblem is why the key's file cannot be used; nil: it can, or none is named. It does not
	// keep the agent from starting, which takes the key once the file has it, as it takes the
	// master once that is up. An agent with a key keeps it, however.
	keyProblem *configs.Problem
	web        exporters.WebConfig
}

// warnings are to be logged where this configuration comes into force.
func (e effective) warnings() (all []string) {
	if e.keyProblem != nil {
		all = append(all, fmt.Sprintf("no API key for the master; it is used once its file has it: %s", e.keyProblem))
	}
	exposed := exposedSecrets(e.Config)
	for _, key := range slices.Sorted(maps.Keys(exposed)) {
		all = append(all, fmt.Sprintf("every user of this machine has access to %s (%s): %s", exposed[key], key, restrictCommand(exposed[key])))
	}
	return all
}

// configuration is the configuration of this process. It implements actors.Configuration:
// Reload reads it again and hands it to the parts of the agent, each of which maps it to its
// own settings by the same function as at the start.
type configuration struct {
	load  func() (*configs.Loaded, error)
	file  string // path of the configuration file, which may be missing
	log   *zap.Logger
	parts []func(effective) error // see onReload

	reload sync.Mutex // held by Changed and Reload; guards the three below
	watch  fileWatch
	loaded *configs.Loaded // as last loaded, but for the values that need a restart
	logged []string        // warnings of the configuration in force

	mu        sync.Mutex
	reloading func() (done func()) // see aroundReload; may be nil
	inForce   effective
	status    messages.ConfigurationStatus
}

var _ actors.Configuration = (*configuration)(nil)

// loadConfiguration loads the configuration and the files that it names.
func loadConfiguration(file string, load func() (*configs.Loaded, error)) (*configuration, error) {
	loaded, err := load()
	if err != nil {
		return nil, err
	}
	inForce, err := readFiles(loaded)
	if err != nil {
		return nil, err
	}
	c := &configuration{
		load: load, file: file, log: zap.NewNop(),
		loaded: loaded, inForce: inForce, logged: inForce.warnings(),
	}
	c.status = c.newStatus(nil)
	c.watch.reset(c.files(inForce))
	return c, nil
}

// fixedConfiguration is one that does not change.
func fixedConfiguration(cfg configs.Config) *configuration {
	return &configuration{inForce: effective{Config: cfg, apiKey: cfg.Master.APIKey}}
}

// reloads reports whether the configuration may change.
func (c *configuration) reloads() bool { return c.load != nil }

// current is the configuration in force.
func (c *configuration) current() effective {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inForce
}

// onReload registers a part of the agent before the agent starts, which gets the new
// configuration at each reload. Where one fails, which must change nothing then, those before
// it get the old configuration again.
func (c *configuration) onReload(part func(effective) error) { c.parts = append(c.parts, part) }

// aroundReload registers a function that is called at the start of each reload; the done it returns is called at its end.
func (c *configuration) aroundReload(reloading func() (done func())) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reloading = reloading
}

// Status reports which configuration is in force.
func (c *configuration) Status() messages.ConfigurationStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Settings are those of the actors.
func (c *configuration) Settings() actors.Settings { return actorSettings(c.current()) }

// Changed reports whether a file has changed and is complete.
func (c *configuration) Changed() bool {
	c.reload.Lock()
	defer c.reload.Unlock()
	return c.watch.changed()
}

// Reload reads the configuration again and applies what can be applied while the agent runs.
func (c *configuration) Reload(context.Context) error {
	c.reload.Lock()
	defer c.reload.Unlock()
	c.mu.Lock()
	reloading := c.reloading
	c.mu.Unlock()
	if reloading != nil {
		defer reloading()()
	}
	err := c.apply(c.watch.look())
	if err != nil {
		c.log.Error("could not reload the configuration; nothing has changed", zap.Error(err))
		c.mu.Lock()
		defer c.mu.Unlock()
		now := time.Now()
		c.status.Error, c.status.ErrorAt = err.Error(), &now
	}
	return err
}

// apply loads and applies the configuration. before is what the files held before that.
func (c *configuration) apply(before fingerprints) error {
	defer func() { c.watch.seen(before) }()
	if err := checkRegular(c.file); err != nil {
		return err
	}
	loaded, err := c.load()
	if err != nil {
		return err
	}
	if loaded.File == "" && c.loaded.File != "" {
		return fmt.Errorf("configuration file %s no longer exists", c.loaded.File)
	}
	if c.loaded.FromFile() > 0 && loaded.FromFile() == 0 {
		return fmt.Errorf("configuration file %s no longer sets any key; restart the agent if that is intended", loaded.File)
	}
	next, err := c.readNext(loaded)
	if err != nil {
		c.watch.add(filesOf(loaded.Config)) // to see when they are mended
		return err
	}
	var changed, restart []string
	loaded.Config, changed, restart = c.loaded.Config.Reloaded(loaded.Config)
	old := c.current()
	next.Config, _, _ = old.Reloaded(loaded.Config)
	for i, part := range c.parts {
		if err := part(next); err != nil {
			for _, applied := range c.parts[:i] {
				err = errors.Join(err, applied(old))
			}
			return err
		}
	}
	changed = append(changed, c.changedFiles(old, next, before)...)
	logged := slices.Concat(c.loaded.Warnings, c.logged)
	c.logged = next.warnings()
	for _, warning := range slices.Concat(loaded.Warnings, c.logged) {
		if !slices.Contains(logged, warning) {
			c.log.Warn(warning)
		}
	}
	c.logReload(changed, restart, c.Status().Error != "")
	c.loaded = loaded
	c.watch.reset(c.files(next))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inForce = next
	c.status = c.newStatus(restart)
	return nil
}

// newStatus is the status of a configuration that has just come into force.
func (c *configuration) newStatus(restart []string) messages.ConfigurationStatus {
	return messages.ConfigurationStatus{
		File: c.loaded.File, LoadedAt: time.Now(), Restart: append([]string{}, restart...),
		Warnings: slices.Concat(c.loaded.Warnings, c.logged), NoKey: c.inForce.keyProblem != nil,
	}
}

// readNext reads the files that a configuration names.
func (c *configuration) readNext(loaded *configs.Loaded) (effective, error) {
	for _, path := range filesOf(loaded.Config) {
		if err := checkRegular(path); err != nil {
			return effective{}, err
		}
	}
	next, err := readFiles(loaded)
	if err == nil && next.keyProblem != nil && c.current().keyProblem == nil {
		return effective{}, &configs.Error{Problems: []configs.Problem{*next.keyProblem}}
	}
	return next, err
}

// checkRegular refuses what reading may wait for without end, such as a FIFO, while the agent
// runs. Files that do not exist are left to the code that needs them.
func checkRegular(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return nil
}

func (c *configuration) logReload(changed, restart []string, mended bool) {
	switch {
	case len(restart) > 0:
		c.log.Warn("configuration reloaded; some keys need a restart of the agent", zap.Strings("changed", changed), zap.Strings("need_restart", restart))
	case len(changed) > 0:
		c.log.Info("configuration reloaded", zap.Strings("changed", changed))
	case mended:
		c.log.Info("configuration reloaded: it is valid again, and nothing has changed")
	default:
		c.log.Info("configuration reloaded: nothing has changed")
	}
}

// changedFiles are the keys whose files have changed, but not their names.
func (c *configuration) changedFiles(old, next effective, now fingerprints) []string {
	var keys []string
	files, oldFiles := filesOf(next.Config), filesOf(old.Config)
	for _, key := range slices.Sorted(maps.Keys(files)) {
		path := files[key]
		switch {
		case path != oldFiles[key]: // the key itself has changed
		case c.watch.loaded[path] != now[path], key == webConfigKey && next.web.ID() != old.web.ID():
			keys = append(keys, key)
		}
	}
	return keys
}

const webConfigKey = "exporters.web_config"

// filesOf are the files that a configuration names, by key.
func filesOf(cfg configs.Config) map[string]string {
	files := map[string]string{
		"master.api_key_file": cfg.Master.APIKeyFile, "master.ca": cfg.Master.CA, "master.cert": cfg.Master.Cert, "master.key": cfg.Master.Key,
		webConfigKey: cfg.Exporters.WebConfig,
	}
	maps.DeleteFunc(files, func(_, path string) bool { return path == "" })
	return files
}

// files are all files of a configuration: its own, those that it names, and those that the
// web configuration names.
func (c *configuration) files(e effective) []string {
	return slices.Concat([]string{c.file}, slices.Collect(maps.Values(filesOf(e.Config))), e.web.Files)
}
