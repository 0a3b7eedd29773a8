/* What BridgeStan makes of a Stan program, written by hand: a library with its functions.

   data { real y; }
   parameters { real mu; real<lower=0> tau; matrix[2, 3] m; }
   transformed parameters { vector[2] both = [mu, tau]'; }
   model { mu ~ normal(0, 1); tau ~ exponential(1); to_vector(m) ~ std_normal(); y ~ normal(mu, 1); }

   with the unconstrained value log(tau), and log densities with all constants. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define HALF_LOG_2PI 0.91893853320467274178

int bs_major_version = 2, bs_minor_version = 9, bs_patch_version = 0;

typedef struct { double y; } model;

static void fail(char** err, const char* said) {
  if (err) *err = strdup(said);
}

void* bs_model_construct(const char* data, unsigned seed, char** err) {
  const char* at = strstr(data, "\"y\"");
  if (!at) {
    fail(err, "variable does not exist; processing stage=data initialization; variable name=y; "
              "base type=double");
    return NULL;
  }
  model* made = malloc(sizeof(model));
  made->y = atof(strchr(at, ':') + 1);
  return made;
}

void bs_model_destruct(void* m) { free(m); }
void bs_free_error_msg(char* said) { free(said); }
int bs_set_print_callback(void* callback, char** err) { return 0; }
const char* bs_name(const void* m) { return "by_hand_model"; }
const char* bs_model_info(const void* m) { return "STAN_THREADS=true"; }
int bs_param_num(const void* m, bool tp, bool gq) { return 8 + (tp ? 2 : 0); }
int bs_param_unc_num(const void* m) { return 8; }

const char* bs_param_names(const void* m, bool tp, bool gq) {
  return tp ? "mu,tau,m.1.1,m.2.1,m.1.2,m.2.2,m.1.3,m.2.3,both.1,both.2"
            : "mu,tau,m.1.1,m.2.1,m.1.2,m.2.2,m.1.3,m.2.3";
}

const char* bs_param_unc_names(const void* m) {
  return "mu,tau,m.1.1,m.2.1,m.1.2,m.2.2,m.1.3,m.2.3";
}

int bs_param_constrain(const void* m, bool tp, bool gq, const double* x, double* out, void* rng,
                       char** err) {
  memcpy(out, x, 8 * sizeof(double));
  out[1] = exp(x[1]);
  if (tp) {
    out[8] = out[0];
    out[9] = out[1];
  }
  return 0;
}

int bs_log_density_gradient(const void* m, bool propto, bool jacobian, const double* x,
                            double* value, double* slope, char** err) {
  const double y = ((const model*)m)->y, tau = exp(x[1]);
  if (tau > 1e6) {
    fail(err, "Exception: tau is too large");
    return 1;
  }
  *value = -HALF_LOG_2PI - 0.5 * x[0] * x[0] - tau + x[1];
  *value += -HALF_LOG_2PI - 0.5 * (y - x[0]) * (y - x[0]);
  slope[0] = -x[0] + y - x[0];
  slope[1] = 1 - tau;
  for (int i = 2; i < 8; i++) {
    *value += -HALF_LOG_2PI - 0.5 * x[i] * x[i];
    slope[i] = -x[i];
  }
  return 0;
}

/* Looked up by BridgeStan's Python, and not called here. */
int bs_log_density(void) { return 1; }
int bs_log_density_hessian(void) { return 1; }
int bs_log_density_hessian_vector_product(void) { return 1; }
int bs_param_unconstrain(void) { return 1; }
int bs_param_unconstrain_json(void) { return 1; }
int bs_param_initialize(void) { return 1; }
void* bs_rng_construct(void) { return NULL; }
void bs_rng_destruct(void* rng) {}
