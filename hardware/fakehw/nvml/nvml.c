/*
 * A libnvidia-ml.so of cards with known power. It does what the file "scenario" in
 * its directory describes, which each call reloads after a change. fakehw/nvml.go
 * documents and writes the file.
 */
#define _GNU_SOURCE
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <nvml.h>

typedef long long ns;

enum { MAX_CARDS = 16, MAX_PIECES = 64, MAX_FAILURES = 32, MAX_PROCESSES = 32, NAME = 96 };

/* From a time on: high power for the first length of each period, then low power. */
struct piece { ns from; double low, high; ns length, period; }; /* W */

struct failure { char call[NAME]; int code; };

struct process { unsigned pid, sm, memory, encoder, decoder; };

struct card {
	char uuid[NAME], name[NAME];
	ns since; /* when the energy counter was at start */
	double start; /* J */
	double scale; /* factor of the energy counter to the integral of the power */
	struct piece pieces[MAX_PIECES];
	struct failure failures[MAX_FAILURES];
	struct process processes[MAX_PROCESSES];
	int piece_count, failure_count, process_count, mig;
	double limit, max_limit; /* W */
	unsigned temperature, gpu, memory, encoder, decoder, graphics, sm, memory_clock;
	unsigned long long used, total, throttle;
};

static struct scenario {
	char driver[NAME], crash[NAME], hang[NAME];
	int generation, card_count, failure_count;
	ns update, average;
	struct failure failures[MAX_FAILURES];
	struct card cards[MAX_CARDS];
} scenario;

static struct stat loaded; /* the scenario file */
static int generation = -1; /* of the driver at nvmlInit; -1: not initialized */

/* What handles point to. */
static struct nvmlDevice_st { char uuid[NAME]; } handles[MAX_CARDS];

static void fail_parse(const char *line)
{
	fprintf(stderr, "fake NVML: invalid line of the scenario: %s\n", line);
	_exit(3);
}

static void parse_card(struct card *c, const char *key, const char *rest, const char *line)
{
	struct piece *p = &c->pieces[c->piece_count];
	struct process *u = &c->processes[c->process_count];
	struct failure *f = &c->failures[c->failure_count];
	int n = -1;

	if (!strcmp(key, "name")) n = snprintf(c->name, NAME, "%s", rest) > 0 ? 0 : -1;
	else if (!strcmp(key, "since")) n = sscanf(rest, "%lld %lf", &c->since, &c->start) - 2;
	else if (!strcmp(key, "scale")) n = sscanf(rest, "%lf", &c->scale) - 1;
	else if (!strcmp(key, "power") && c->piece_count < MAX_PIECES)
		n = sscanf(rest, "%lld %lf %lf %lld %lld", &p->from, &p->low, &p->high, &p->length, &p->period) - 5, c->piece_count++;
	else if (!strcmp(key, "fail") && c->failure_count < MAX_FAILURES) n = sscanf(rest, "%95s %d", f->call, &f->code) - 2, c->failure_count++;
	else if (!strcmp(key, "process") && c->process_count < MAX_PROCESSES)
		n = sscanf(rest, "%u %u %u %u %u", &u->pid, &u->sm, &u->memory, &u->encoder, &u->decoder) - 5, c->process_count++;
	else if (!strcmp(key, "mig")) n = sscanf(rest, "%d", &c->mig) - 1;
	else if (!strcmp(key, "limit")) n = sscanf(rest, "%lf %lf", &c->limit, &c->max_limit) - 2;
	else if (!strcmp(key, "temperature")) n = sscanf(rest, "%u", &c->temperature) - 1;
	else if (!strcmp(key, "use")) n = sscanf(rest, "%u %u %u %u", &c->gpu, &c->memory, &c->encoder, &c->decoder) - 4;
	else if (!strcmp(key, "memory")) n = sscanf(rest, "%llu %llu", &c->used, &c->total) - 2;
	else if (!strcmp(key, "clocks")) n = sscanf(rest, "%u %u %u", &c->graphics, &c->sm, &c->memory_clock) - 3;
	else if (!strcmp(key, "throttle")) n = sscanf(rest, "%llx", &c->throttle) - 1;
	if (n != 0) fail_parse(line);
}

static void parse(FILE *file)
{
	char line[512];
	struct card *card = NULL;

	memset(&scenario, 0, sizeof scenario);
	while (fgets(line, sizeof line, file)) {
		char key[32], *rest;
		int at = 0, n = 0;
		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%31s %n", key, &at) < 1) continue;
		rest = line + at;
		if (!strcmp(key, "card")) {
			if (scenario.card_count == MAX_CARDS) fail_parse(line);
			card = &scenario.cards[scenario.card_count++];
			card->scale = 1;
			snprintf(card->uuid, NAME, "%s", rest);
		} else if (card) {
			parse_card(card, key, rest, line);
		} else {
			struct failure *f = &scenario.failures[scenario.failure_count];
			n = -1;
			if (!strcmp(key, "driver")) n = sscanf(rest, "%95s", scenario.driver) - 1;
			else if (!strcmp(key, "generation")) n = sscanf(rest, "%d", &scenario.generation) - 1;
			else if (!strcmp(key, "update")) n = sscanf(rest, "%lld", &scenario.update) - 1;
			else if (!strcmp(key, "average")) n = sscanf(rest, "%lld", &scenario.average) - 1;
			else if (!strcmp(key, "crash")) n = sscanf(rest, "%95s", scenario.crash) - 1;
			else if (!strcmp(key, "hang")) n = sscanf(rest, "%95s", scenario.hang) - 1;
			else if (!strcmp(key, "fail") && scenario.failure_count < MAX_FAILURES)
				n = sscanf(rest, "%95s %d", f->call, &f->code) - 2, scenario.failure_count++;
			if (n != 0) fail_parse(line);
		}
	}
}

/* reload_scenario reads the scenario if its file was replaced. */
static void reload_scenario(void)
{
	char path[4096];
	struct stat now;
	Dl_info self;
	FILE *file;

	if (!dladdr((void *)reload_scenario, &self)) abort();
	snprintf(path, sizeof path, "%s", self.dli_fname);
	*(strrchr(path, '/') ? strrchr(path, '/') + 1 : path) = 0;
	strncat(path, "scenario", sizeof path - strlen(path) - 1);
	if (stat(path, &now)) fail_parse(path);
	if (now.st_ino == loaded.st_ino && now.st_mtim.tv_sec == loaded.st_mtim.tv_sec && now.st_mtim.tv_nsec == loaded.st_mtim.tv_nsec) return;
	file = fopen(path, "r");
	if (!file) fail_parse(path);
	parse(file);
	fclose(file);
	loaded = now;
}

static int failing(const struct failure *list, int count, const char *call)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(list[i].call, call) || !strcmp(list[i].call, "*")) return list[i].code;
	return NVML_SUCCESS;
}

/* enter starts every call, which the scenario may break. */
static nvmlReturn_t enter(const char *call)
{
	reload_scenario();
	if (!strcmp(scenario.crash, call)) raise(SIGSEGV), *(volatile int *)NULL = 0;
	if (!strcmp(scenario.hang, call))
		for (;;) sleep(1000);
	return failing(scenario.failures, scenario.failure_count, call);
}

/* find starts a call for a card. */
static nvmlReturn_t find(const char *call, nvmlDevice_t device, struct card **card)
{
	nvmlReturn_t r = enter(call);
	if (r) return r;
	if (generation < 0 || generation != scenario.generation) return NVML_ERROR_UNINITIALIZED;
	for (int i = 0; i < scenario.card_count; i++)
		if (!strcmp(scenario.cards[i].uuid, device.handle->uuid)) {
			*card = &scenario.cards[i];
			return failing((*card)->failures, (*card)->failure_count, call);
		}
	return NVML_ERROR_GPU_IS_LOST;
}

/* now is CLOCK_MONOTONIC at the last update of the sensors. */
static ns now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	ns v = t.tv_sec * 1000000000LL + t.tv_nsec;
	return scenario.update > 0 ? v - v % scenario.update : v;
}

static double power(const struct card *c, ns at)
{
	for (int i = c->piece_count - 1; i >= 0; i--) {
		const struct piece *p = &c->pieces[i];
		if (at >= p->from) return p->period > 0 && (at - p->from) % p->period >= p->length ? p->low : p->high;
	}
	return 0;
}

/* piece_joules is the energy of a piece in its first t. */
static double piece_joules(const struct piece *p, ns t)
{
	if (p->period <= 0) return p->high * t / 1e9;
	ns turns = t / p->period, rest = t % p->period;
	ns high = turns * p->length + (rest < p->length ? rest : p->length);
	return (p->high * high + p->low * (t - high)) / 1e9;
}

/* joules is the energy of a card up to a time. */
static double joules(const struct card *c, ns at)
{
	double sum = 0;
	for (int i = 0; i < c->piece_count; i++) {
		ns end = i + 1 < c->piece_count && c->pieces[i + 1].from < at ? c->pieces[i + 1].from : at;
		if (end > c->pieces[i].from) sum += piece_joules(&c->pieces[i], end - c->pieces[i].from);
	}
	return sum;
}

static double averaged(const struct card *c, ns at)
{
	ns over = scenario.average;
	if (over <= 0) return power(c, at);
	if (c->piece_count && at - over < c->pieces[0].from) over = at - c->pieces[0].from;
	return over > 0 ? (joules(c, at) - joules(c, at - over)) * 1e9 / over : power(c, at);
}

nvmlReturn_t nvmlInit_v2(void)
{
	nvmlReturn_t r = enter(__func__);
	if (!r) generation = scenario.generation;
	return r;
}

nvmlReturn_t nvmlShutdown(void)
{
	nvmlReturn_t r = enter(__func__);
	if (!r && generation < 0) r = NVML_ERROR_UNINITIALIZED;
	generation = -1;
	return r;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
	switch ((int)result) {
	case NVML_SUCCESS: return "The operation was successful";
	case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
	case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
	case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
	case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	}
	return "Unknown Error";
}

/* initialized starts a call that is not for a card. */
static nvmlReturn_t initialized(const char *call)
{
	nvmlReturn_t r = enter(call);
	if (r) return r;
	return generation < 0 || generation != scenario.generation ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

static nvmlReturn_t text(char *to, unsigned length, const char *from)
{
	if (strlen(from) >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
	strcpy(to, from);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	nvmlReturn_t r = initialized(__func__);
	return r ? r : text(version, length, scenario.driver);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	nvmlReturn_t r = initialized(__func__);
	if (!r) *count = scenario.card_count;
	return r;
}

/* handle returns the handle of a card, unless the card fails. */
static nvmlReturn_t handle(const char *call, const struct card *c, nvmlDevice_t *device)
{
	for (int i = 0; i < MAX_CARDS; i++) {
		if (!*handles[i].uuid) strcpy(handles[i].uuid, c->uuid);
		if (strcmp(handles[i].uuid, c->uuid)) continue;
		device->handle = &handles[i];
		return failing(c->failures, c->failure_count, call);
	}
	return NVML_ERROR_UNKNOWN;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	nvmlReturn_t r = initialized(__func__);
	if (r) return r;
	return index < (unsigned)scenario.card_count ? handle(__func__, &scenario.cards[index], device) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	nvmlReturn_t r = initialized(__func__);
	for (int i = 0; !r && i < scenario.card_count; i++)
		if (!strcmp(scenario.cards[i].uuid, uuid)) return handle(__func__, &scenario.cards[i], device);
	return r ? r : NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy)
{
	struct card *c;
	nvmlReturn_t r = find(__func__, device, &c);
	if (!r) {
		double used = joules(c, now()) - joules(c, c->since);
		*energy = (unsigned long long)((c->start + (used > 0 ? used : 0)) * c->scale * 1e3);
	}
	return r;
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
	struct card *c;
	nvmlReturn_t r = find(__func__, device, &c);
	if (r) return r;
	for (int i = 0; i < count; i++) {
		int instant = values[i].fieldId == NVML_FI_DEV_POWER_INSTANT;
		int known = instant || values[i].fieldId == NVML_FI_DEV_POWER_AVERAGE;
		values[i].nvmlReturn = known ? failing(c->failures, c->failure_count, instant ? "power_instant" : "power_average") : NVML_ERROR_NOT_SUPPORTED;
		values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
		values[i].value.uiVal = (unsigned)((instant ? power(c, now()) : averaged(c, now())) * 1e3 + 0.5);
	}
	return r;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *min, unsigned int *max)
{
	struct card *c;
	nvmlReturn_t r = find(__func__, device, &c);
	if (!r) *min = 1000, *max = (unsigned)(c->max_limit * 1e3);
	return r;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
	struct card *c;
	nvmlReturn_t r = find(__func__, device, &c);
	if (!r) *current = *pending = c->mig;
	return r;
}

/* A card in MIG mode does not report utilization. */
static nvmlReturn_t find_utilization(const char *call, nvmlDevice_t device, struct card **c)
{
	nvmlReturn_t r = find(call, device, c);
	return !r && (*c)->mig ? NVML_ERROR_NOT_SUPPORTED : r;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *use)
{
	struct card *c;
	nvmlReturn_t r = find_utilization(__func__, device, &c);
	if (!r) use->gpu = c->gpu, use->memory = c->memory;
	return r;
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *use, unsigned int *period)
{
	struct card *c;
	nvmlReturn_t r = find_utilization(__func__, device, &c);
	if (!r) *use = c->encoder, *period = 167000;
	return r;
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *use, unsigned int *period)
{
	struct card *c;
	nvmlReturn_t r = find_utilization(__func__, device, &c);
	if (!r) *use = c->decoder, *period = 167000;
	return r;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	struct card *c;
	nvmlReturn_t r = find(__func__, device, &c);
	if (!r) memory->total = c->total, memory->used = c->used, memory->free = c->total - c->used;
	return r;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)
{
	struct card *c;
	nvmlReturn_t r = find(__func__, device, &c);
	if (!r) *clock = type == NVML_CLOCK_MEM ? c->memory_clock : type == NVML_CLOCK_SM ? c->sm : c->graphics;
	return r;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius)
{
	struct card *c;
	nvmlReturn_t r = find(__func__, device, &c);
	if (!r) *celsius = c->temperature;
	return sensor == NVML_TEMPERATURE_GPU ? r : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *samples, unsigned int *count,
                                             unsigned long long last)
{
	struct timespec t;
	struct card *c;
	nvmlReturn_t r = find_utilization(__func__, device, &c);
	if (r) return r;
	if (!c->process_count) return NVML_ERROR_NOT_FOUND;
	unsigned room = samples ? *count : 0;
	*count = c->process_count;
	if (room < *count) return NVML_ERROR_INSUFFICIENT_SIZE;
	clock_gettime(CLOCK_REALTIME, &t);
	for (int i = 0; i < c->process_count; i++) {
		struct process *p = &c->processes[i];
		samples[i] = (nvmlProcessUtilizationSample_t){p->pid, t.tv_sec * 1000000ULL + t.tv_nsec / 1000, p->sm, p->memory, p->encoder, p->decoder};
	}
	(void)last;
	return r;
}

/* Calls that return one number or text. */
#define FIGURE(call, type, value) \
	nvmlReturn_t call(nvmlDevice_t device, type *figure) \
	{ \
		struct card *c; \
		nvmlReturn_t r = find(__func__, device, &c); \
		if (!r) *figure = (type)(value); \
		return r; \
	}

FIGURE(nvmlDeviceGetPowerUsage, unsigned int, averaged(c, now()) * 1e3 + 0.5)
FIGURE(nvmlDeviceGetEnforcedPowerLimit, unsigned int, c->limit * 1e3)
FIGURE(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, c->throttle)
FIGURE(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, c->throttle)

#define TEXT(call, value) \
	nvmlReturn_t call(nvmlDevice_t device, char *to, unsigned int length) \
	{ \
		struct card *c; \
		nvmlReturn_t r = find(__func__, device, &c); \
		return r ? r : text(to, length, value); \
	}

TEXT(nvmlDeviceGetName, c->name)
TEXT(nvmlDeviceGetUUID, c->uuid)
