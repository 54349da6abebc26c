/* Acts with an exported policy through TensorFlow's C API alone: no Python, no kerasrl_pg.

   act MODEL [OBSERVATIONS [BATCH]]

   MODEL         folder that `agent.export` made, holding assets.extra/signatures.txt
   OBSERVATIONS  file of raw float32 numbers in this machine's byte order, one observation after
                 another, each flat in C order; "-" or nothing: standard input
   BATCH         observations a call, 1 where not given, so that each is answered as it arrives

   Prints one line for each observation: the action the environment accepts, its numbers separated
   by spaces. Serves policies that observe one float32 tensor, which is all of `Box(float)` spaces;
   Dict, Tuple, image (uint8) and discrete observations need a client that fills several or other
   tensors.

   Build against the C API in TensorFlow's pip wheel:

   TF=$(python -c "import tensorflow as tf; print(tf.sysconfig.get_lib())")
   gcc -O2 -I$TF/include act.c -o act -L$TF -l:libtensorflow_cc.so.2 \
       -l:libtensorflow_framework.so.2 -Wl,-rpath,$TF
*/

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tensorflow/c/c_api.h>

static void fail(const char *sentence, ...) {
  va_list arguments;
  va_start(arguments, sentence);
  vfprintf(stderr, sentence, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

/* One line of signatures.txt: which tensor of the graph an argument is. */
typedef struct {
  int found;
  char argument[128], tensor[256], dtype[32], shape[256];
} Endpoint;

/* Reads the one input of the signature `serving_default`, and its output named `action`. */
static void read_signature(const char *model, Endpoint *input, Endpoint *output) {
  char path[4096], line[1024], signature[128], kind[16];
  if (snprintf(path, sizeof path, "%s/assets.extra/signatures.txt", model) >= (int)sizeof path)
    fail("MODEL must be a path of fewer than %zu letters. Received: %s", sizeof path, model);
  FILE *file = fopen(path, "r");
  if (!file)
    fail("MODEL must be a folder that agent.export wrote. Cannot open: %s", path);
  while (fgets(line, sizeof line, file)) {
    Endpoint one = {1, "", "", "", ""};
    if (sscanf(line, "%127s %15s %127s %255s %31s %255s", signature, kind, one.argument, one.tensor,
               one.dtype, one.shape) != 6)
      fail("Each line of %s must have six words. Received: %s", path, line);
    if (strcmp(signature, "serving_default")) continue;
    if (!strcmp(kind, "input")) {
      if (input->found)
        fail("This program serves policies that observe one tensor. Received the inputs: %s, %s.",
             input->argument, one.argument);
      *input = one;
    } else if (!strcmp(one.argument, "action")) {
      *output = one;
    }
  }
  fclose(file);
  if (!input->found || !output->found)
    fail("%s must name an input and the output \"action\" of serving_default.", path);
}

/* Finds "operation:index" in the graph. */
static TF_Output find(TF_Graph *graph, const char *tensor) {
  char name[256];
  snprintf(name, sizeof name, "%s", tensor);
  char *colon = strrchr(name, ':');
  if (colon) *colon = '\0';
  TF_Output output = {TF_GraphOperationByName(graph, name), colon ? atoi(colon + 1) : 0};
  if (!output.oper || output.index < 0 || output.index >= TF_OperationNumOutputs(output.oper))
    fail("signatures.txt must belong to this model: there is no tensor %s in its graph.", tensor);
  return output;
}

/* Reads "-1,84,84" into sizes {-1, 84, 84}, and gives how many there are; `row` is 84 x 84. */
static int parse_shape(const Endpoint *input, int64_t sizes[8], size_t *row) {
  char shape[sizeof input->shape];
  int rank = 0;
  *row = 1;
  strcpy(shape, input->shape);
  for (char *size = strtok(shape, ","); size; size = strtok(NULL, ",")) {
    if (rank == 8) fail("The input %s must have at most 8 dimensions.", input->argument);
    sizes[rank] = atoll(size);
    if (rank > 0) *row *= sizes[rank] > 0 ? (size_t)sizes[rank] : 0;
    rank++;
  }
  if (rank < 2 || sizes[0] != -1 || *row == 0)
    fail("The input %s must have a free batch size, and known sizes after it. Received: shape %s.",
         input->argument, input->shape);
  return rank;
}

/* A float16 by its bits; finite ones only, as actions are. */
static float half(uint16_t bits) {
  const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, rest = bits & 0x7fffu;
  uint32_t wide = sign | ((rest + 0x1c000u) << 13);
  float number;
  memcpy(&number, &wide, sizeof number);
  return rest < 0x400u ? (sign ? -1.0f : 1.0f) * (float)rest / 16777216.0f : number;
}

static void print_number(TF_DataType dtype, const void *data, size_t i) {
  switch (dtype) {
    case TF_FLOAT: printf("%.9g", ((const float *)data)[i]); break;
    case TF_HALF: printf("%.9g", half(((const uint16_t *)data)[i])); break;
    case TF_DOUBLE: printf("%.17g", ((const double *)data)[i]); break;
    case TF_INT32: printf("%d", ((const int32_t *)data)[i]); break;
    case TF_INT64: printf("%lld", (long long)((const int64_t *)data)[i]); break;
    case TF_UINT64: printf("%llu", (unsigned long long)((const uint64_t *)data)[i]); break;
    case TF_UINT32: printf("%u", ((const uint32_t *)data)[i]); break;
    case TF_INT16: printf("%d", ((const int16_t *)data)[i]); break;
    case TF_UINT16: printf("%u", ((const uint16_t *)data)[i]); break;
    case TF_INT8: printf("%d", ((const int8_t *)data)[i]); break;
    case TF_UINT8: case TF_BOOL: printf("%u", ((const uint8_t *)data)[i]); break;
    default: fail("Actions must be real numbers or bool. Received: TF_DataType %d.", dtype);
  }
}

/* Prints `count` actions, one a line. */
static void print_actions(const TF_Tensor *actions, size_t count) {
  if (TF_NumDims(actions) < 1 || TF_Dim(actions, 0) != (int64_t)count)
    fail("The model must give one action for each of the %zu observations.", count);
  size_t width = (size_t)TF_TensorElementCount(actions) / count;
  for (size_t i = 0; i < count * width; i++) {
    print_number(TF_TensorType(actions), TF_TensorData(actions), i);
    putchar((i + 1) % width ? ' ' : '\n');
  }
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 4) fail("Usage: act MODEL [OBSERVATIONS [BATCH]]");
  setenv("TF_CPP_MIN_LOG_LEVEL", "2", 0); /* errors only, unless the caller wants more */
  int batch = argc > 3 ? atoi(argv[3]) : 1;
  if (batch < 1) fail("BATCH must be a whole number of at least 1. Received: %s", argv[3]);
  FILE *file = argc > 2 && strcmp(argv[2], "-") ? fopen(argv[2], "rb") : stdin;
  if (!file) fail("OBSERVATIONS must be a readable file, or \"-\". Received: %s", argv[2]);

  Endpoint input = {0}, output = {0};
  int64_t sizes[8];
  size_t row;
  read_signature(argv[1], &input, &output);
  if (strcmp(input.dtype, "float32"))
    fail("This program serves float32 observations. Received: %s of dtype %s.", input.argument,
         input.dtype);
  int rank = parse_shape(&input, sizes, &row);

  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  if (TF_GetCode(status) != TF_OK)
    fail("TensorFlow cannot load %s: %s", argv[1], TF_Message(status));
  TF_Output in = find(graph, input.tensor), out = find(graph, output.tensor);

  size_t bytes = row * sizeof(float), got;
  char *buffer = malloc(bytes * (size_t)batch);
  if (!buffer) fail("BATCH is too large for the memory. Received: %d", batch);
  while ((got = fread(buffer, 1, bytes * (size_t)batch, file)) > 0) {
    if (got % bytes)
      fail("OBSERVATIONS must be whole observations, of %zu float32 numbers. Left over: %zu bytes.",
           row, got % bytes);
    sizes[0] = (int64_t)(got / bytes);
    TF_Tensor *observations = TF_AllocateTensor(TF_FLOAT, sizes, rank, got), *actions = NULL;
    memcpy(TF_TensorData(observations), buffer, got);
    TF_SessionRun(session, NULL, &in, &observations, 1, &out, &actions, 1, NULL, 0, NULL, status);
    if (TF_GetCode(status) != TF_OK)
      fail("TensorFlow cannot run the model: %s", TF_Message(status));
    print_actions(actions, got / bytes);
    TF_DeleteTensor(observations);
    TF_DeleteTensor(actions);
  }
  if (ferror(file)) fail("OBSERVATIONS cannot be read to the end.");

  free(buffer);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
